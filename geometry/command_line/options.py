"""Options of the command line from the parameters of a function or dataclass."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionYesNo

from geometry.errors import one_line
from geometry.files.paths import path_argument

_METAVARS: dict[Any, str] = {int: "N", float: "X", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """What a type does not say about an option: ``Annotated[Path, Option(also=("out",))]``.

    Attributes:
        nargs: "*" for a list that may be empty.
        metavar: what stands for the value in the help, or for each of several.
        also: other names, which the help does not show.
        parse: makes the value of a word; by default what the type says.
        choices: what a word may be, where this is known at run time alone.
    """

    nargs: str | None = None
    metavar: str | tuple[str, ...] | None = None
    also: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameter:
    """A parameter that becomes an option.

    Attributes:
        name: its name.
        hint: its type, without None and without remarks.
        may_be_none: whether None is a value.
        default: ``inspect.Parameter.empty`` if it must be given.
        help: what the docstring says about it.
        is_positional: its values may be given without the option's name.
        option: remarks on it.
    """

    name: str
    hint: Any
    may_be_none: bool
    default: Any
    help: str
    is_positional: bool
    option: Option

    @property
    def num_words(self) -> int | str:
        """How many words of the command line its value has: a number, or "+" or "*"."""
        arguments = get_args(self.hint)
        if self.hint is bool:
            return 0
        if not self.is_sequence:
            return 1
        is_fixed = get_origin(self.hint) is tuple and arguments[-1] is not Ellipsis
        return len(arguments) if is_fixed else self.option.nargs or "+"

    @property
    def is_sequence(self) -> bool:
        """Whether its value is a list or a tuple."""
        return get_origin(self.hint) in (list, tuple, Sequence)

    @property
    def is_required(self) -> bool:
        """Whether it must be given."""
        return self.default is inspect.Parameter.empty

    def settings(self) -> dict[str, Any]:
        """Return the arguments of ``add_argument`` that describe the option."""
        settings: dict[str, Any] = {"help": self.help, "required": self.is_required}
        if not self.is_required:
            settings["default"] = _as_words(self.default)
        if self.hint is bool:
            return settings | {"action": ActionYesNo}
        if self.is_sequence:
            settings["nargs"] = self.num_words
        if self._parse is None:
            settings["type"] = self._word | None if self.may_be_none and not self.is_sequence else self._word
        else:
            settings["type"] = _Checked(self._parse, "path" if self._word is Path else "text")
        metavar = self.option.metavar or _METAVARS.get(self._word)
        return settings | ({"metavar": metavar} if metavar else {})

    def value(self, parsed: Any) -> Any:  # noqa: ANN401 - values have any type
        """Return the value that the function gets for what the parser found."""
        if isinstance(parsed, list):
            values = [one if self._parse is None else self._parse(one) for one in parsed]
            return tuple(values) if get_origin(self.hint) is tuple else values
        return parsed if parsed is None or self._parse is None else self._parse(parsed)

    @property
    def _word(self) -> Any:  # noqa: ANN401 - a type
        """Type of what one word of the command line stands for."""
        if self.option.choices:
            return Literal[self.option.choices]
        return get_args(self.hint)[0] if self.is_sequence else self.hint

    @property
    def _parse(self) -> Callable[[str], Any] | None:
        return self.option.parse or (path_argument if self._word is Path else None)


@dataclass(frozen=True)
class Part:
    """A function or dataclass whose parameters are options; those that are dataclasses stand for the options below.

    Attributes:
        make: the function or class: typed, and described in its docstring in Google's style.
        own: options that are its own parameters.
        parts: by parameter, what makes its value of further options.
    """

    make: Callable[..., Any]
    own: list[Parameter]
    parts: "dict[str, Part]"

    @property
    def options(self) -> list[Parameter]:
        """All options: its own, and those of its parts."""
        return [*self.own, *(one for part in self.parts.values() for one in part.options)]

    def values(self, parsed: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the parameters.

        Args:
            parsed: values by the names of options.
        """
        own = {one.name: one.value(parsed[one.name]) for one in self.own}
        return own | {name: part.call(parsed) for name, part in self.parts.items()}

    def call(self, parsed: Mapping[str, Any]) -> Any:  # noqa: ANN401 - whatever it returns
        """Call it with what the options say.

        Args:
            parsed: values by the names of options.
        """
        given = self.values(parsed)
        positional = [given.pop(one.name) for one in self.own if one.is_positional]
        return self.make(*positional, **given)


def part_of(make: Callable[..., Any], parts: Mapping[str, Callable[..., Any]] | None = None) -> Part:
    """Return the options of a function or dataclass.

    Args:
        make: the function or class.
        parts: by parameter, what makes its value of options, where its type is no dataclass.
    """
    hints = get_type_hints(make, include_extras=True)
    told = reversed(make.__mro__) if isinstance(make, type) else (make,)
    texts = {
        found.arg_name: one_line(found.description or "")
        for one in told
        for found in docstring_parser.parse(one.__doc__ or "").params
    }
    if is_dataclass(make):
        kinds = {field.name: (_default(field), False) for field in fields(make)}
    else:
        found = inspect.signature(make).parameters.values()
        kinds = {one.name: (one.default, one.kind is inspect.Parameter.POSITIONAL_ONLY) for one in found}
    below = {name: hints[name] for name in kinds if is_dataclass(hints.get(name))} | dict(parts or {})
    own = []
    for name, (default, is_positional) in kinds.items():
        if name not in below:
            hint, may_be_none, option = _plain(hints[name])
            own.append(Parameter(name, hint, may_be_none, default, texts.get(name, ""), is_positional, option))
    return Part(make, own, {name: part_of(maker) for name, maker in below.items()})


def described(part: Callable[..., Any]) -> tuple[str, str]:
    """Return the first sentence of a docstring and all that it says before its sections.

    Args:
        part: a function or class.
    """
    found = docstring_parser.parse(part.__doc__ or "")
    first = one_line(found.short_description or "")
    return first, "\n\n".join(one_line(text) for text in (first, found.long_description or "") if text)


def _default(field: Any) -> Any:  # noqa: ANN401 - a field of a dataclass
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else inspect.Parameter.empty


def _plain(hint: Any) -> tuple[Any, bool, Option]:  # noqa: ANN401 - types
    """Return a type without None and remarks, whether None belonged to it, and the remarks."""
    option, may_be_none = Option(), False
    while True:
        if get_origin(hint) is Annotated:
            option = next((one for one in hint.__metadata__ if isinstance(one, Option)), option)
            hint = get_args(hint)[0]
        elif get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
            may_be_none = True
            rest = [one for one in get_args(hint) if one is not NoneType]
            hint = Union[tuple(rest)]  # noqa: UP007 - of a list
        else:
            return hint, may_be_none, option


def _as_words(default: Any) -> Any:  # noqa: ANN401 - values have any type
    """Return a default as a configuration holds it."""
    if isinstance(default, tuple):
        return [_as_words(one) for one in default]
    return str(default) if isinstance(default, Path) else default


class _Checked:
    """The type of an option whose words are checked by the parser, and turned into values after it.

    The parser keeps words, which a configuration can hold, in place of paths and the like.
    """

    def __init__(self, parse: Callable[[str], Any], name: str) -> None:
        self._parse = parse
        self._name = name

    def __call__(self, word: Any) -> Any:  # noqa: ANN401 - a word, or null in a configuration
        if word is not None:
            self._parse(word)
        return word

    def __repr__(self) -> str:
        return self._name
