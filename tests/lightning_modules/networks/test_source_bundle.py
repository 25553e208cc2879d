"""Methods are written down with all that they use, and run alone to the same result; what cannot be is refused."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from geometry.errors import InputError
from lightning_modules.networks.source_bundle import SourceBundle

STEPS = {"small": [1, 2]}


def halved(number):
    return number / 2


def floor_of_half(number):
    """Return what a helper of a helper makes."""
    return math.floor(halved(number))


class Scale:
    """An object that another one holds."""

    def __init__(self, factor):
        self.factor = factor

    @property
    def twice(self):
        return 2 * self.factor

    def apply(self, number):
        if number is None:
            raise InputError("there is no number.")
        return self.twice * number + self.again().factor

    def again(self):
        return self

    def unused(self):
        return self.nothing_of_the_kind


class Whole:
    offset = 3

    def __init__(self):
        self.model = len
        self.scale = Scale(5)
        self.names = ("a", "b")

    def value(self, number):
        """Return everything at once."""
        return self.scale.apply(floor_of_half(number)) + self.offset + self.model(self.names) + sum(STEPS["small"])

    def inherited(self):
        return super().__init__()

    def with_an_object(self):
        return self.weights


def run(bundle, settings):
    space = {"Mapping": Mapping, "Any": Any}
    exec(compile("from __future__ import annotations\n" + bundle.text(), "pipeline.py", "exec"), space)
    return space, space["Written"](settings, len)


def test_a_class_runs_alone_and_holds_what_its_methods_use_and_no_more():
    bundle = SourceBundle()
    settings = bundle.add("Written", Whole(), ["value"])
    space, written = run(bundle, settings)
    assert written.value(9) == Whole().value(9) == 10 * 4 + 5 + 3 + 2 + 3
    assert settings == {"offset": 3, "names": ["a", "b"], "scale": {"factor": 5}}
    assert "unused" not in bundle.text() and "inherited" not in bundle.text()
    with pytest.raises(ValueError, match="there is no number"):
        space["WrittenScale"]({"factor": 5}).apply(None)


def test_what_the_file_has_already_is_not_written_again():
    bundle = SourceBundle(known=["math"])
    bundle.add("Written", Whole(), ["value"])
    bundle.add("Other", Whole(), ["value"])
    assert "import math" not in bundle.text()
    assert bundle.text().count("def halved") == bundle.text().count("STEPS =") == 1


def test_what_cannot_be_written_down_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"inherited calls super\(\), which cannot be written"):
        SourceBundle().add("Written", Whole(), ["inherited"])
    whole = Whole()
    whole.weights = object()
    with pytest.raises(InputError, match="Whole cannot be written into a folder for diffusers: weights is a object"):
        SourceBundle().add("Written", whole, ["with_an_object"])
