"""Names of images that can be no path are a message, as the command line takes any word."""

import pytest

from geometry.errors import InputError
from lightning_modules.inference.photos import find_photos


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x" * 300, "^the image xxx.*too long for a path"),
        ("~nobody-here/x.png", "no such user"),
        ("", "the image is empty"),
        ("a\0b", "zero byte"),
        ("nothing/*.png", "no file matches"),
    ],
)
def test_a_name_that_is_no_path_is_told(tmp_path, name, told):
    with pytest.raises(InputError, match=told):
        find_photos([name], tmp_path)
