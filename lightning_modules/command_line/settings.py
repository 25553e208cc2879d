"""Settings of a run that are wrong whatever the model and the data are, found before anything is built."""

import re
from dataclasses import is_dataclass
from datetime import timedelta
from inspect import Parameter
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from jsonargparse import Namespace

from geometry.errors import InputError
from geometry.files.paths import check_writable, given_path
from geometry.jsonargparse_internals import parameters_of
from lightning_modules.command_line.links import class_of
from lightning_modules.training.precision import check_precision
from lightning_modules.training.run_settings import leaves

# One more than the largest seed that NumPy takes.
_NUM_SEEDS = 2**32
_BATCHES_BETWEEN_VALIDATIONS = 1000
_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 1,
    "min_epochs": 0,
    "min_steps": 0,
    "num_nodes": 1,
    "num_sanity_val_steps": -1,
    "val_check_interval": 1,
}
_MOST = {"devices": 4096, "num_nodes": 65_536}
# What a command has nothing to do without.
_NEEDED = {
    "fit": ("limit_train_batches", "max_steps", "max_epochs"),
    "validate": ("limit_val_batches",),
    "test": ("limit_test_batches",),
}
# Settings of the trainer that would change nothing here, and what to do in their place.
_IDLE = {
    "model_registry": "export has --push_to_hub",
    "gradient_clip_algorithm": "set gradient_clip_norm of the model",
}


def settle(command: str, config: Namespace) -> None:
    """Check the settings of a command, expand ``~`` in its paths, and fill in what others decide.

    Args:
        command: fit, validate or test.
        config: its options; changed in place.

    Raises:
        InputError: a setting is out of range, or two of them contradict each other.
    """
    for section in ("trainer", "checkpoints", "ema", "panels"):
        if not isinstance(config.get(section), Namespace):
            raise InputError(f"the section {section} holds no options; leave it out to keep the defaults.")
    _refuse_interpolations(config)
    for section in ("model", "data"):
        _refuse_what_the_parser_lets_pass(config.get(section), section)
    _check_seed(config.seed_everything)
    _check_name(config.name)
    trainer = config.trainer
    check_precision(trainer.precision, "trainer.precision")
    _check_numbers(trainer)
    _check_what_is_to_do(command, trainer)
    _choose_validation(trainer)
    if trainer.callbacks is not None and not isinstance(trainer.callbacks, list):
        trainer.callbacks = [trainer.callbacks]
    runs = "runs" if trainer.default_root_dir is None else trainer.default_root_dir
    trainer.default_root_dir = _expand(runs, "trainer.default_root_dir")
    if command == "fit" and "://" not in trainer.default_root_dir:
        check_writable(Path(trainer.default_root_dir, config.name), "the run's folder")
    if config.get("ckpt_path") is not None:
        config.ckpt_path = _expand(config.ckpt_path, "--ckpt_path")
    if config.get("ckpt_path") in ("hpc", "registry"):
        raise InputError(f"--ckpt_path {config.ckpt_path}: give the path of a checkpoint, or last or best.")
    if config.get("run") is not None:
        raise InputError(f"run: {config.run} is an option of the command line alone, not of a configuration: --run.")


def _expand(path: str, option: str) -> str:
    """Return a path with ``~`` expanded; a URL as it is."""
    return path if "://" in path else str(given_path(path, option))


def _refuse_interpolations(config: Namespace) -> None:
    """Files resolve ``${...}``; on the command line, such a text would be taken as it stands."""
    for name, value in leaves(config.as_dict()):
        if isinstance(value, str) and re.search(r"\$\{[^}]*\}", value):
            raise InputError(
                f"{name}: {value} is resolved in files alone. On the command line, let your shell do it: $NAME."
            )


def _refuse_what_the_parser_lets_pass(value: object, key: str) -> None:
    """Of a class, the parser takes a list for settings by name, and null for everything."""
    arguments = value.get("init_args") if isinstance(value, Namespace) else None
    if not isinstance(value, Namespace) or not isinstance(arguments, Namespace):
        return
    for name, hint, default in parameters_of(class_of(value.class_path)):
        below = arguments.get(name, default)
        if is_dataclass(hint) and isinstance(below, list):
            raise InputError(f"{key}.{name} holds settings (name: value), not the list {below}.")
        if below is None and default is not None and not _takes_null(hint):
            raise InputError(f"{key}.{name} needs a value, not null; leave it out to keep its default.")
        _refuse_what_the_parser_lets_pass(below, f"{key}.{name}")


def _takes_null(hint: object) -> bool:
    return hint in (Any, Parameter.empty, NoneType) or any(member in (None, NoneType) for member in get_args(hint))


def _check_seed(seed: int | bool) -> None:
    if not isinstance(seed, bool) and not 0 <= seed < _NUM_SEEDS:
        raise InputError(
            f"seed_everything must lie between 0 and {_NUM_SEEDS - 1}, got {seed}; true draws a seed, false sets none."
        )


def _check_name(name: str) -> None:
    parts = name.split("/")
    if not all(part.strip(". ") for part in parts) or not name.isprintable():
        raise InputError(f"--name {name!r} is no name of a folder below trainer.default_root_dir.")


def _check_numbers(trainer: Namespace) -> None:
    for name, least in _LEAST.items():
        value = trainer.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value < least:
            raise InputError(f"trainer.{name} must be at least {least}, got {value}.")
    for name, most in _MOST.items():
        value = trainer.get(name)
        if str(value).isdecimal() and int(value) > most:
            raise InputError(f"trainer.{name} must be at most {most}, got {value}.")
    for name, remedy in _IDLE.items():
        if trainer.get(name) is not None:
            raise InputError(f"trainer.{name} changes nothing in this project: {remedy}.")


def _check_what_is_to_do(command: str, trainer: Namespace) -> None:
    for name in _NEEDED[command]:
        if trainer.get(name) == 0:
            raise InputError(f"trainer.{name} is 0, which leaves {command} nothing to do.")
    if command == "fit" and trainer.max_time in ({}, timedelta(0)):
        raise InputError('trainer.max_time is 0, which leaves fit nothing to do. "00:12:00:00" are twelve hours.')


def _choose_validation(trainer: Namespace) -> None:
    """Validate every so many batches, or at the end of epochs where those are counted."""
    by_epoch, interval = trainer.check_val_every_n_epoch, trainer.val_check_interval
    if interval is None:
        trainer.val_check_interval = _BATCHES_BETWEEN_VALIDATIONS if by_epoch is None else 1.0
    elif by_epoch is not None and isinstance(interval, int):
        raise InputError(
            f"trainer.check_val_every_n_epoch {by_epoch} counts epochs and trainer.val_check_interval {interval} "
            "counts batches. Set val_check_interval to 1.0 to validate at the end of every so many epochs, or leave "
            "check_val_every_n_epoch away."
        )
