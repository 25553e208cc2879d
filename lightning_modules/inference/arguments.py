"""Command-line options that name a trained model, the same for every command that uses one."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from geometry.errors import InputError, printable
from geometry.files.paths import given_path
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
    group.add_argument(
        "--run", metavar="RUN", help="runs/NAME for the newest run of a name, runs/NAME/version_N, or a checkpoint file"
    )
    group.add_argument("--model", metavar="DIR", help="exported diffusers folder, or hub id of a Marigold model")
    group.add_argument(
        "--ckpt_path",
        metavar="WHICH",
        help="which checkpoint of the run: last, best (by the metric that the run watched), or a file. Without --run "
        "also a run, or best or last of the newest run of the name in --config (default: last)",
    )
    group.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="configuration, a file or the name of a shipped one such as demo: with --run, laid over the run's own; "
        "otherwise in its place",
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
    from lightning_modules.training.found_runs import find_run

    given = {"--run": options.run, "--ckpt_path": options.ckpt_path, "--model": options.model, "--base": options.base}
    for option, value in given.items():
        if value is not None:
            given_path(value, option)
    configs = [find_config(os.fspath(given_path(file, "--config"))) for file in options.config]
    if options.run is None:
        model = load_model(options.ckpt_path or options.model, configs, options.base, options.ema)
    else:
        own = find_run(options.run, options.ckpt_path).config
        laid_over: list[str | Path] = [own, *configs] if configs else []
        model = load_model(options.run, laid_over, options.base, options.ema, options.ckpt_path)
    if model.taken:
        print(printable(model.taken), flush=True)
    return model


def _check_source(options: argparse.Namespace) -> None:
    """Check that the model is named once.

    Raises:
        InputError: it is not named, or twice.
    """
    named = [option for option in ("run", "ckpt_path", "model") if getattr(options, option, None) is not None]
    if not named:
        raise InputError("one of --run, --ckpt_path and --model is needed: runs/NAME, a checkpoint, or an export.")
    if "model" in named and len(named) > 1:
        raise InputError(f"--{named[0]} and --model both name a model; give one of them.")


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
        options = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise InputError(str(error)) from error
    if hasattr(options, "ckpt_path"):
        _check_source(options)
    return options


def _raise(message: str) -> NoReturn:
    raise InputError(message)
