"""Loggers of one's own: the packages they need, where they go on with a run, and what they can show."""

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only
from torch import Tensor

from geometry.colorize import eight_bit
from geometry.errors import InputError, one_line
from geometry.files.json_text import read_json_file
from geometry.files.writing import write_whole

# In a run's folder: which files or pages its loggers write to, so that a run that goes on adds to the same ones.
RECORD = "loggers.json"
# How often W&B writes to its file. By default it is 15 seconds, which a kill would lose.
_FLUSH_S = 0.2
_PACKAGES = {
    "WandbLogger": ("wandb", "pip install -e '.[wandb]'"),
    "MLFlowLogger": ("mlflow", "pip install mlflow"),
    "CometLogger": ("comet_ml", "pip install comet-ml"),
    "NeptuneLogger": ("neptune", "pip install neptune"),
}


def check_packages(option: object) -> None:
    """Check that the packages of the configured loggers are installed.

    Args:
        option: the option ``trainer.logger``.

    Raises:
        InputError: one is not.
    """
    for logger in _configured(option):
        name = _class_name(logger)
        if name not in _PACKAGES:
            continue
        package, command = _PACKAGES[name]
        try:
            import_module(package)
        except ImportError as error:
            raise InputError(f"trainer.logger {name} needs the package {package}: {command}.") from error


@contextmanager
def placed(option: object, run: Path, goes_on: bool) -> Iterator[None]:
    """Let the loggers that are made meanwhile write where they wrote in the run that goes on.

    A logger whose folder is that of all runs of the name writes into the run's folder. The configuration is as it was
    afterwards, for a run that is started from it must write elsewhere.

    Args:
        option: the option ``trainer.logger``.
        run: folder of the run.
        goes_on: the run is one that is continued.
    """
    record = _read_record(run) if goes_on else []
    changed = []
    for number, logger in enumerate(_configured(option)):
        arguments = logger.get("init_args") or Namespace()
        if arguments.get("version") is not None or arguments.get("id") is not None:
            continue
        before = record[number] if number < len(record) and record[number].get("logger") == _class_name(logger) else {}
        place = Path(str(arguments.get("save_dir") or ".")) / str(arguments.get("name") or "")
        version = run.name if place.absolute() == run.parent.absolute() else before.get("version")
        if "version" in arguments and version is not None:
            arguments.version = version
            changed.append(arguments)
        elif goes_on:
            rank_zero_info(f"{_class_name(logger)} begins anew: it cannot go on where the run logged before.")
    yield
    for arguments in changed:
        arguments.version = None


def write_record(run: Path, loggers: Sequence[Logger]) -> None:
    """Write down where the loggers of a run write.

    Args:
        run: folder of the run, which exists.
        loggers: the trainer's loggers.
    """
    own = [{"logger": type(logger).__name__, "version": _version(logger)} for logger in loggers]
    write_whole(run / RECORD, json.dumps(own))


def can_show_images(logger: Logger) -> bool:
    """Say whether a logger takes images."""
    return isinstance(logger, TensorBoardLogger | WandbLogger)


def show_image(logger: Logger, name: str, image: Tensor, step: int) -> None:
    """Give an image to a logger that takes images.

    Args:
        logger: the logger.
        name: name of the image.
        image: (3,H,W) in [0, 1].
        step: optimiser step that it belongs to.
    """
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, image, step)
    elif isinstance(logger, WandbLogger):
        pixels = eight_bit(image).numpy()
        logger.log_image(name, [pixels], step)


@rank_zero_only
def open_services(loggers: Sequence[Logger]) -> None:
    """Open the runs of loggers that need a service.

    Args:
        loggers: the trainer's loggers.

    Raises:
        InputError: nobody is logged in, or the service cannot be reached.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", str(_FLUSH_S))
            try:
                _ = logger.experiment
            except wandb.Error as error:
                reason = one_line(error).rstrip(".")
                raise InputError(
                    f"WandbLogger cannot open a run: {reason}. Log in with wandb login, or set WANDB_MODE=offline."
                ) from error


@rank_zero_only
def close_services(loggers: Sequence[Logger]) -> None:
    """Let everything that was logged arrive.

    Args:
        loggers: the trainer's loggers.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


class ServiceFlush(Callback):
    """Lets W&B write the curves up to a checkpoint before it is saved; a run that is killed then goes on after them."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Wait for the process that writes, which has no call for it.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            checkpoint: not used.
        """
        if trainer.is_global_zero and any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
            time.sleep(3 * _FLUSH_S)


def _configured(option: object) -> list[Namespace]:
    options = option if isinstance(option, list) else [option]
    return [logger for logger in options if isinstance(logger, Namespace) and "class_path" in logger]


def _class_name(logger: Namespace) -> str:
    return str(logger.class_path).rpartition(".")[2]


def _version(logger: Logger) -> int | str | None:
    is_elsewhere = "://" in str(logger.save_dir or "")  # files there are not read again
    return None if is_elsewhere and not isinstance(logger, WandbLogger) else logger.version


def _read_record(run: Path) -> list[dict[str, Any]]:
    with suppress(ValueError):
        content = read_json_file(run / RECORD)
        if isinstance(content, list) and all(isinstance(entry, dict) for entry in content):
            return content
    return []
