"""What is used of jsonargparse without its promise does what it is used for."""

import inspect
from dataclasses import dataclass

from jsonargparse import ActionConfigFile

from geometry import jsonargparse_internals as internals


class Reader(internals.OpenParser):
    """Notes what it reads."""

    read = ()

    def read_config(self, content, path, read):
        type(self).read = (content, str(path))
        return super().read_config(content.replace("1", "2"), path, read)


def test_the_text_of_a_configuration_passes_through_the_public_name(tmp_path):
    (tmp_path / "a.yaml").write_text("size: 1\n")
    parser = Reader()
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_argument("--size", type=int, help="how large")
    assert parser.parse_args([f"--config={tmp_path / 'a.yaml'}"]).size == 2
    assert Reader.read[0] == "size: 1\n"
    assert "a.yaml" in Reader.read[1]


def test_every_option_and_group_of_a_parsers_help_is_found():
    parser = internals.OpenParser()
    group = parser.add_argument_group("Sizes")
    group.add_argument("--wide_one", help="how wide")
    assert "how wide" in [option.help for option in internals.options_of(parser)]
    assert ("--wide_one",) in [tuple(option.option_strings) for option in internals.options_of(parser)]
    titles = {found.title: [option.dest for option in options] for found, options in internals.groups_of(parser)}
    assert titles["Sizes"] == ["wide_one"]
    for found, _ in internals.groups_of(parser):
        if found.title == "Sizes":
            found.title = "Widths"
    assert "Widths" in parser.format_help()


@dataclass
class Inner:
    """What an option may be set to, or to nothing."""

    size: int = 1


class Outer:
    """A class within a class."""

    def __init__(self, inner: Inner | None = None) -> None:
        """Take it."""


class Outermost:
    """A class."""

    def __init__(self, outer: Outer) -> None:
        """Take it."""


def test_an_option_of_a_class_within_a_class_can_be_set_back_to_null(tmp_path):
    (tmp_path / "a.yaml").write_text(
        f"model: {{class_path: {__name__}.Outermost, init_args: {{outer: {{class_path: {__name__}.Outer, "
        "init_args: {inner: {size: 3}}}}}"
    )
    parser = internals.OpenParser()
    parser.add_argument("--config", action=ActionConfigFile)
    parser.add_subclass_arguments(Outermost, "model")
    config = f"--config={tmp_path / 'a.yaml'}"
    assert parser.parse_args([config]).model.init_args.outer.init_args.inner.size == 3
    for word in ("--model.outer.inner=null", "--model.init_args.outer.init_args.inner=null"):
        assert parser.parse_args([config, word]).model.init_args.outer.init_args.inner is None


class Base:
    """What hands on to."""

    def __init__(self, wide: int, high: float | None = 2.0) -> None:
        """Take it."""


class Derived(Base):
    """What hands all on."""

    def __init__(self, deep: str = "a", **others: float) -> None:
        super().__init__(**others)


def test_what_a_class_can_be_given_has_name_type_and_default_with_what_it_hands_on():
    empty = inspect.Parameter.empty
    assert internals.parameters_of(Derived) == [("deep", str, "a"), ("wide", int, empty), ("high", float | None, 2.0)]
