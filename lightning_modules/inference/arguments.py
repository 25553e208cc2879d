"""Command-line options that name a trained model, the same for every command that uses one."""

import argparse
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from geometry.errors import InputError
from geometry.paths import given_path
from lightning_modules.lightning_internals import options_of
from lightning_modules.shipped import find_config

if TYPE_CHECKING:
    from lightning_modules.inference.loading import LoadedModel


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a command take a checkpoint or an export.

    Args:
        parser: the command's parser.
    """
    group = parser.add_argument_group("model")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--ckpt_path", metavar="PATH", help="checkpoint: a file, a run's folder, or runs/NAME for the newest run"
    )
    source.add_argument("--model", metavar="DIR", help="exported diffusers folder, or hub id of a Marigold model")
    group.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="configuration that the checkpoint was trained with, a file or the name of a shipped one such as demo; by "
        "default the config.yaml of its run",
    )
    group.add_argument("--base", metavar="DIR", help="base model in place of the configured one, if that has moved")
    group.add_argument(
        "--ema",
        choices=("auto", "true", "false"),
        default="auto",
        help="take the moving average of the weights; auto takes it where there is one (default: %(default)s)",
    )


def load_from_arguments(options: argparse.Namespace) -> "LoadedModel":
    """Return the model that parsed options name.

    Args:
        options: parsed by a parser with ``add_model_arguments``.

    Raises:
        InputError: the model cannot be found or loaded.
    """
    from lightning_modules.inference.loading import load_model

    given = {"--ckpt_path": options.ckpt_path, "--model": options.model, "--base": options.base}
    for option, value in given.items():
        if value is not None:
            given_path(value, option)
    configs = [find_config(os.fspath(given_path(file, "--config"))) for file in options.config]
    return load_model(options.ckpt_path or options.model, configs, options.base, options.ema)


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse words; an option may be spelled with dashes or with underscores.

    Args:
        parser: the command's parser.
        arguments: words after the command's name.

    Raises:
        InputError: the words cannot be understood.
    """
    known = {name.replace("_", "-"): name for option in options_of(parser) for name in option.option_strings}
    words = [
        re.sub(r"^--[\w-]+", lambda name: known.get(name[0].replace("_", "-"), name[0]), word) for word in arguments
    ]
    parser.exit_on_error = False
    parser.error = _raise  # type: ignore[method-assign]
    try:
        return parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from error


def _raise(message: str) -> NoReturn:
    raise InputError(message)
