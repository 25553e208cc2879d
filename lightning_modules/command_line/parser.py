"""The parser of the command line: plain help, and errors of one line."""

import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from textwrap import shorten
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, Namespace
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from geometry.errors import InputError, one_line
from geometry.files.paths import given_path
from geometry.files.reading import read_text_file
from lightning_modules.command_line.console import leave, plain_help, readable_error
from lightning_modules.lightning_internals import OpenParser, groups_of, options_of
from lightning_modules.shipped import find_config

# In place of Lightning's help, where this project means something else or something less.
HELP = {
    "config": "Configuration file, or the name of a shipped one, such as demo or hardware/24gb. Several are laid over "
    "one another.",
    "seed_everything": "Seed of everything random. True draws one, false sets none.",
    "trainer.logger": "Logger or list of loggers. By default TensorBoard in the run's folder for fit, none otherwise.",
    "trainer.default_root_dir": "Folder of all runs.",
    "trainer.gradient_clip_val": "Not for this project: set gradient_clip_norm of the model.",
    "trainer.val_check_interval": "Number of batches (not optimiser steps) between two validations, or a time such as "
    '"00:01:00:00". By default 1000, or 1.0, the end of the epoch, with check_val_every_n_epoch. fit also validates '
    "the final weights.",
    "ckpt_path": "Checkpoint to start from: a path, or last or best of the newest run of this name. With last, fit "
    "goes on in that run's folder, or starts afresh if there is none; with another, it starts a new run.",
}
TITLES = {
    "trainer": "Trainer",
    "model": "Model",
    "data": "Data",
    "checkpoints": "Checkpoints that fit writes",
    "evaluation": "Scores, files and visualisations of a test",
    "panels": "Visualisations of validation images in TensorBoard or W&B",
    "ema": "Average of the trained weights (EMA)",
    "ckpt_path": "Start",
}


class ConfigFile(ActionConfigFile):
    """The option ``--config``, which takes the names of shipped configurations, too."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:  # noqa: ANN401
        """Read a configuration.

        Args:
            parser: the parser.
            cfg: what was parsed before; changed in place.
            values: path, name of a shipped configuration, or settings in YAML.
            option_string: the option as it was spelled.
        """
        super().__call__(parser, cfg, find_config(values), option_string)


class Parser(OpenParser):
    """A parser with plain help, and with errors of one line in place of the usage of two hundred options."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Add an option; Lightning's ``--config`` takes the names of shipped configurations, too.

        Args:
            *args: what the parser of jsonargparse takes.
            **kwargs: what the parser of jsonargparse takes.
        """
        if kwargs.get("action") is ActionConfigFile:
            kwargs["action"] = ConfigFile
        return super().add_argument(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave with status 2.

        Args:
            message: what is wrong.
            ex: the exception behind it.
        """
        if not self.exit_on_error:  # a parser inside another, which may try something else
            super().error(message, ex)
        leave(readable_error(message))

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
        except (YAMLError, OmegaConfBaseException, RecursionError) as error:
            raise TypeError(f"{place}: {one_line(error)}") from error

    def parse_args(self, args: Any = None, *others: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]  # noqa: ANN401
        """Read a command line. Any option may be a file that holds its value: one that never ends is refused.

        Args:
            args: the words; None is those of the process.
            *others: what the parser of jsonargparse takes.
            **kwargs: what the parser of jsonargparse takes.
        """
        for word in sys.argv[1:] if args is None else args if isinstance(args, list) else []:
            name, _, value = str(word).rpartition("=")
            with suppress(OSError, ValueError):
                mode = os.stat(value).st_mode
                if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                    leave(f"{name or 'an option'}: {value} is no regular file and no folder.")
        try:
            return super().parse_args(args, *others, **kwargs)
        except UnicodeDecodeError as error:
            leave(f"a file that stands for the value of an option holds more than text ({error}).")

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
            option.help = plain_help(HELP.get(option.dest, option.help or ""))
        for group, options in groups_of(self):
            keys = {option.dest.split(".")[0] for option in options}
            if len(keys) == 1:
                group.title = TITLES.get(keys.pop(), group.title)
        return super().format_help(*args, **kwargs)


def _load(content: str) -> Any:  # noqa: ANN401 - whatever a YAML text holds
    try:
        return yaml.safe_load(content)
    except ValueError as error:  # YAML has dates, and lets Python say which are none
        raise YAMLError(f"it holds a date that is none: {error}") from error
