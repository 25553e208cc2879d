"""Writes down what makes a run repeatable: its resolved configuration and the commit of the code."""

import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from geometry.files.writing import write_whole
from lightning_modules.estimator import Estimator
from lightning_modules.training.checkpoints import Checkpoints
from lightning_modules.training.loggers import write_record
from lightning_modules.training.run_folders import has_checkpoint, link_checkpoints
from lightning_modules.training.run_settings import flat_settings, plain_config
from lightning_modules.training.run_tensorboard import show_settings

_PATIENCE_S = 10.0


class RunRecord(SaveConfigCallback):
    """Saves config.yaml in the run's folder, and gives configuration and git commit to every logger.

    TensorBoard shows them under *Text*, and the settings under *HParams*. Other loggers get them as
    hyperparameters, the commit as ``git_commit``.

    Args:
        parser: parser of the command.
        config: the resolved configuration.
        folder: folder of the run.
        **options: what Lightning's callback takes.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, folder: Path, **options: Any) -> None:  # noqa: ANN401
        super().__init__(parser, config, save_to_log_dir=False, **options)
        self.folder = folder
        self._is_new = not folder.exists()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet: a run that is refused at its start must leave the record of the one before as it is."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
        """
        super().setup(trainer, pl_module, "fit")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the folder of a run away that ended before its first step: it would be an empty row in TensorBoard.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            exception: what ended the run.
        """
        is_empty = trainer.global_step == 0 and not has_checkpoint(self.folder)
        if is_empty and trainer.is_global_zero and self._is_new and self.folder.is_dir():
            for logger in trainer.loggers:
                logger.finalize("failed")
            shutil.rmtree(self.folder, ignore_errors=True)

    def save_config(self, trainer: Trainer, pl_module: Estimator, stage: str) -> None:  # type: ignore[override]
        """Write the record, and give it to the loggers; only the first rank calls this.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            stage: the stage of the trainer.
        """
        self._write(trainer)
        commit = git_commit(Path.cwd())
        metric, names = pl_module.task.headline_metric, pl_module.val_dataset_names
        for logger in trainer.loggers:
            self._log(logger, commit, trainer.global_step)
            if isinstance(logger, TensorBoardLogger):
                settings = flat_settings(plain_config(self.parser, self.config))
                show_settings(logger, settings, [f"val/{name}/{metric}" for name in names])
        write_record(self.folder, trainer.loggers)

    @cached_property
    def _text(self) -> str:
        return self.parser.dump(self.config, skip_none=False)

    def _write(self, trainer: Trainer) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / self.config_filename, self._text)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints):
                link_checkpoints(self.folder, str(callback.dirpath))

    def _log(self, logger: Logger, commit: str | None, step: int) -> None:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("config", f"```yaml\n{self._text}\n```", step)
            if commit:
                logger.experiment.add_text("git_commit", commit, step)
        else:
            logger.log_hyperparams(plain_config(self.parser, self.config) | ({"git_commit": commit} if commit else {}))


def git_commit(folder: Path) -> str | None:
    """Return the commit that is checked out in a folder, with ``-dirty`` after it if tracked files were changed.

    Args:
        folder: any folder of a git repository.

    Returns:
        For instance ``0f3c...-dirty``; None without git, or if the folder is in no repository.
    """
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_PATIENCE_S).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
