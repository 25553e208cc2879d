"""Figures are optional: without matplotlib, the command says what to install."""

import sys

import pytest

from geometry.errors import InputError
from research.paper_in_miniature.figures import write_figures


def test_without_matplotlib_the_command_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"pip install -e '.\[benchmarks\]'"):
        write_figures(None, {}, tmp_path)
