"""The parser of every command: plain help, and errors of one line."""

import argparse
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from textwrap import shorten
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from yaml import YAMLError

from geometry.command_line.messages import leave, plain_help, readable_error
from geometry.errors import InputError, one_line
from geometry.files.paths import given_path
from geometry.files.reading import read_text_file
from geometry.jsonargparse_internals import OpenParser, groups_of, options_of

CONFIG_HELP = "YAML file with values of these options. What follows on the command line is laid over it."
PRINT_CONFIG_HELP = "Print all options with their values as such a file, and exit."


class Parser(OpenParser):
    """A parser with plain help, and with errors of one line in place of the usage of all options.

    Attributes:
        HELP: texts in place of those that docstrings have, by option.
        TITLES: titles of groups of options, by the first part of their names.
        config_errors: what reading a configuration may raise, besides errors of YAML.
        hint: what errors end with.
    """

    HELP: dict[str, str] = {"print_config": PRINT_CONFIG_HELP}  # noqa: RUF012 - constants of the class
    TITLES: dict[str, str] = {}  # noqa: RUF012
    config_errors: tuple[type[Exception], ...] = ()
    hint = ""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave with status 2.

        Args:
            message: what is wrong.
            ex: the exception behind it.
        """
        if not self.exit_on_error:  # a parser inside another, which may try something else
            super().error(message, ex)
        text = readable_error(message)
        leave(f"{text.rstrip('.')}. {self.hint}" if self.hint else text)

    def read_config(self, content: str, path: str | os.PathLike[str], read: Callable[[str], Namespace]) -> Namespace:
        """Read a configuration; one without settings, such as an overlay that is commented out, changes nothing.

        Args:
            content: its text.
            path: file that it comes from; empty for words of the command line.
            read: jsonargparse's own reading of a text.

        Raises:
            TypeError: it cannot be read, or holds something else than sections.
        """
        place = path or "--config"
        try:
            section = _load(content)
            if not isinstance(section, dict) and (section is not None or not path):
                raise TypeError(f"{place}: a configuration holds sections, not {shorten(repr(content), 60)}")
            return read(content if section else "{}")
        except (YAMLError, RecursionError, *self.config_errors) as error:
            raise TypeError(f"{place}: {one_line(error)}") from error

    def parse_args(self, args: Any = None, *others: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]  # noqa: ANN401
        """Read a command line. Any option may be a file that holds its value: one that never ends is refused.

        Args:
            args: the words; None is those of the process.
            *others: what the parser of jsonargparse takes.
            **kwargs: what the parser of jsonargparse takes.
        """
        for word in sys.argv[1:] if args is None else args if isinstance(args, list) else []:
            self.refuse_endless(str(word))
        try:
            return super().parse_args(args, *others, **kwargs)
        except UnicodeDecodeError as error:
            leave(f"a file that stands for the value of an option holds more than text ({error}).")

    def refuse_endless(self, word: str) -> None:
        """Leave if a word names a pipe or a device, which reading would wait for.

        Args:
            word: ``--name=file``, or a file.
        """
        name, _, value = word.rpartition("=")
        with suppress(OSError, ValueError):
            mode = os.stat(value).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                leave(f"{name or 'an option'}: {value} is no regular file and no folder.")

    def parse_path(self, cfg_path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Namespace:  # noqa: ANN401
        """Read a configuration file.

        Args:
            cfg_path: the file.
            *args: what the parser of jsonargparse takes.
            **kwargs: what the parser of jsonargparse takes.
        """
        try:
            read_text_file(given_path(cfg_path, "--config"))
            return super().parse_path(cfg_path, *args, **kwargs)
        except InputError as error:
            raise TypeError(f"{cfg_path} is no configuration: {error}") from error

    def format_help(self, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401
        """Return the help, without the markup of docstrings.

        Args:
            *args: what the parser of jsonargparse takes.
            **kwargs: what the parser of jsonargparse takes.
        """
        for option in options_of(self):
            if option.help != argparse.SUPPRESS:
                option.help = plain_help(self.HELP.get(option.dest, option.help or ""))
        for group, options in groups_of(self):
            keys = {option.dest.split(".")[0] for option in options}
            if len(keys) == 1:
                group.title = self.TITLES.get(keys.pop(), group.title)
        return super().format_help(*args, **kwargs)


def _load(content: str) -> Any:  # noqa: ANN401 - whatever a YAML text holds
    try:
        return yaml.safe_load(content)
    except ValueError as error:  # YAML has dates, and lets Python say which are none
        raise YAMLError(f"it holds a date that is none: {error}") from error
