"""Writes down what makes a run repeatable: its resolved configuration and the commit of the code."""

import subprocess
from pathlib import Path
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf

_PATIENCE_S = 10.0


class RunRecord(SaveConfigCallback):
    """Saves config.yaml in the run's folder, and gives configuration and git commit to every logger.

    TensorBoard shows them under *Text*. Other loggers get them as hyperparameters, the commit as ``git_commit``.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write nothing yet: a run that is refused at its start must leave the record of the one before as it is."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
        """
        super().setup(trainer, pl_module, "fit")

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the record to the loggers; only the first rank calls this.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            stage: the stage of the trainer.
        """
        config = self.parser.dump(self.config, skip_none=False)
        commit = git_commit(Path.cwd())
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("config", f"```yaml\n{config}\n```", trainer.global_step)
                if commit:
                    logger.experiment.add_text("git_commit", commit, trainer.global_step)
            else:
                values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(config)))
                logger.log_hyperparams(values | ({"git_commit": commit} if commit else {}))


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
