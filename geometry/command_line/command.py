"""A command: a typed function whose parameters are its options."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jsonargparse import ActionConfigFile, Namespace

from geometry.command_line.messages import mistake_behind, say_error
from geometry.command_line.options import Parameter, Part, described, part_of
from geometry.command_line.parser import CONFIG_HELP, Parser
from geometry.command_line.words import arrange, with_underscores
from geometry.errors import InputError

HELP_WORDS = ("-h", "--help", "--help_all")


@dataclass
class Command:
    """A function that can be called from the command line.

    Its parameters are options; those that are positional only may be given without a name. A parameter whose type is a
    dataclass stands for the options that the fields are.

    Attributes:
        run: the function. What it returns is the exit status; None is 0.
        parts: by parameter, what makes its value of options, where its type is no dataclass.
        kept: what to say when it is stopped with Ctrl-C.
        prepare_words: changes the words before they are parsed.
        before: is called first.
        title: what has the docstring that describes the command, if the function has not.
    """

    run: Callable[..., int | None]
    parts: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    kept: str = ""
    prepare_words: Callable[[list[str], Sequence[Parameter]], list[str]] | None = None
    before: Callable[[], None] | None = None
    title: Callable[..., Any] | None = None

    @property
    def summary(self) -> str:
        """The first sentence on it."""
        return described(self.title or self.run)[0]

    @cached_property
    def part(self) -> Part:
        """The function with its options."""
        return part_of(self.run, self.parts)

    def parser(self, prog: str) -> Parser:
        """Return its parser.

        Args:
            prog: how it is called.
        """
        parser = Parser(
            prog=prog,
            description=described(self.title or self.run)[1],
            allow_abbrev=False,
            usage=_usage(prog, self.part.options),
        )
        parser.hint = f"(Options: {prog} --help)"
        parser.add_argument("-c", "--config", action=ActionConfigFile, help=CONFIG_HELP)
        _add(parser, parser, self.part, self.title)
        return parser

    def parse(self, words: Sequence[str], prog: str = "onestep") -> Namespace:
        """Return the values of the options of a command line; a mistake ends the process.

        Args:
            words: what follows the command's name.
            prog: how it is called.
        """
        return self.parser(prog).parse_args(self.arranged(words, self.part.options))

    def arranged(self, words: Sequence[str], known: Sequence[Parameter]) -> list[str]:
        """Return a command line in the one spelling that the parser takes.

        Args:
            words: what follows the command's name.
            known: all options.
        """
        num_words: dict[str, int | str] = {f"--{one.name}": one.num_words for one in known}
        num_words |= {f"--no_{one.name}": 0 for one in known if one.num_words == 0}
        also = {f"--{name}": f"--{one.name}" for one in known for name in one.option.also}
        positional = next((one.name for one in known if one.is_positional), None)
        words = ["--config" if word == "-c" else "--help" if word in HELP_WORDS else word for word in words]
        words = arrange(words, {**num_words, "--config": 1, "--help": 0, "--print_config": 0}, also, positional)
        return self.prepare_words(words, known) if self.prepare_words else words

    def main(self, words: Sequence[str], prog: str) -> int:
        """Run it and return the exit status; a user's mistake is one line and status 2.

        Args:
            words: what follows the command's name.
            prog: how it is called.
        """
        if self.before:
            self.before()
        try:
            return self.part.call(vars(self.parse(words, prog))) or 0
        except KeyboardInterrupt:
            print(f"Stopped. {self.kept}".rstrip(), file=sys.stderr)
            return 130
        except Exception as error:
            mistake = mistake_behind(error)
            if mistake is None:
                raise
            say_error(mistake)
            return 2


@dataclass(frozen=True)
class Group:
    """Commands below one name.

    Attributes:
        summary: what they do together.
        commands: returns them by name.
        elsewhere: returns the command that a name with a dot stands for, if such names are taken.
    """

    summary: str
    commands: Callable[[], Mapping[str, Command]]
    elsewhere: Callable[[str], Command] | None = None

    def main(self, words: Sequence[str], prog: str) -> int:
        """Run the one that the first word names.

        Args:
            words: what follows the name of the group.
            prog: how it is called.
        """
        commands, first = self.commands(), words[0] if words else ""
        if with_underscores(first) in HELP_WORDS:
            width = max(map(len, commands))
            lines = [f"  {name.ljust(width)}  {one.summary}" for name, one in commands.items()]
            head = [f"usage: {prog} COMMAND [options]", "", self.summary, ""]
            print("\n".join([*head, *lines, "", f"{prog} COMMAND --help lists its options."]))
            return 0
        if self.elsewhere and "." in first:
            try:
                return self.elsewhere(first).main(words[1:], f"{prog} {first}")
            except InputError as error:
                say_error(str(error))
                return 2
        if first not in commands:
            what = f"there is no command {first}" if first else "a command is needed"
            say_error(f"{prog}: {what}; one of {', '.join(commands)}. ({prog} --help)")
            return 2
        return commands[first].main(words[1:], f"{prog} {first}")

    def parser(self, prog: str) -> Parser:
        """Return a parser to be filled, as the completion of a shell needs it.

        Args:
            prog: how the group is called.
        """
        return Parser(prog=prog, description=self.summary)

    def fill(self, parser: Parser, prog: str) -> None:
        """Add the commands to the parser, which must have its place in the parser above by then.

        Args:
            parser: the group's.
            prog: how the group is called.
        """
        below = parser.add_subcommands(required=True, dest="command")
        for name, command in self.commands().items():
            below.add_subcommand(name, command.parser(f"{prog} {name}"), help=command.summary)


def _add(parser: Parser, group: Any, part: Part, title: Callable[..., Any] | None) -> None:  # noqa: ANN401
    """Add the options of a part to a parser or group, and those of its parts under titles of their own."""
    for parameter in part.own:
        group.add_argument(f"--{parameter.name}", **parameter.settings())
    for name, below in part.parts.items():
        text = name.replace("_", " ") if below.make is title else described(below.make)[0].rstrip(".")
        _add(parser, parser.add_argument_group(text), below, title)


def _usage(prog: str, options: Sequence[Parameter]) -> str:
    """Return the usage: what must be given, and that there is more."""
    words = []
    for one in sorted((one for one in options if one.is_required), key=lambda one: not one.is_positional):
        value = one.name.upper() + (" ..." if isinstance(one.num_words, str) else "")
        words.append(value if one.is_positional else f"--{one.name} {value}")
    return " ".join([prog, *words, "[options]"])


def say_new_spelling(old: str, new: str) -> None:
    """Say that a program of version 0.1 has another name now; it goes on working.

    Args:
        old: how it was called.
        new: how it is called.
    """
    print(f"{old} is {new} now; the old name still works.", file=sys.stderr)
