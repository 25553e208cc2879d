from pathlib import Path

import pytest

from geometry.errors import InputError
from geometry.files.paths import given_path


@pytest.mark.parametrize("text", ["", " ", "a\0b", "~nobody-has-this-name/x", "x" * 256, "ä" * 128, "ab/" * 1400])
def test_what_can_be_no_path_is_refused_in_words_that_fit_a_terminal(text):
    with pytest.raises(InputError, match="--raw") as refused:
        given_path(text, "--raw")
    assert len(str(refused.value)) < 150


def test_long_paths_that_can_be_are_taken():
    assert given_path("x" * 255) == Path("x" * 255)
    assert given_path("ab/" * 1000) == Path("ab/" * 1000)
