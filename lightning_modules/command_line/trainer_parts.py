"""What the command line adds to the trainer that a configuration describes: defaults, logger, plugins, callbacks."""

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import CheckpointIO

from lightning_modules.training.callbacks import RunAnnouncement, Throughput, ValidationSummary
from lightning_modules.training.checkpoint_files import DurableCheckpointIO
from lightning_modules.training.csv_curves import CsvCurves
from lightning_modules.training.loggers import ServiceFlush
from lightning_modules.training.monitoring import MemoryPeak, UpdateRatio
from lightning_modules.training.monitors import MonitoredCurves
from lightning_modules.training.progress import StepProgress
from lightning_modules.training.run_choice import RunChoice
from lightning_modules.training.run_settings import RunSettings
from lightning_modules.training.run_tensorboard import RunTensorBoard

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    "max_steps": 20_000,
    "val_check_interval": None,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
}


def default_logger(config: Namespace, run_name: str, folder_name: str) -> TensorBoardLogger:
    """Return the logger of a fit whose configuration names none.

    Args:
        config: configuration of the trainer.
        run_name: name of the run.
        folder_name: name of the run's folder, below the folder of all runs of that name.
    """
    return RunTensorBoard(config.default_root_dir, run_name, folder_name, default_hp_metric=False)


def plugins_of(config: Namespace, states_of: Sequence[str]) -> list[Any]:
    """Return the configured plugins, and the one that writes checkpoints if none of them does.

    Args:
        config: configuration of the trainer.
        states_of: names of the data modules whose states checkpoints hold.
    """
    plugins = config.plugins if isinstance(config.plugins, list) else [config.plugins]
    plugins = [plugin for plugin in plugins if plugin is not None]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(DurableCheckpointIO(states_of))
    return plugins


def callbacks_of(config: Namespace, run: RunChoice, curves: CsvCurves, settings: RunSettings) -> list[Callback]:
    """Return the configured callbacks and those of every run.

    Args:
        config: configuration of the trainer.
        run: the run.
        curves: keeper of its CSV files.
        settings: keeper of its settings.
    """
    callbacks = [*(config.callbacks or []), RunAnnouncement(run.folder), curves, ServiceFlush()]
    has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    if config.enable_progress_bar is not False and not has_bar:
        callbacks.append(StepProgress())
    return [*callbacks, Throughput(), UpdateRatio(), MemoryPeak(), ValidationSummary(), settings, MonitoredCurves()]
