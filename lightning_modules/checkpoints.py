"""When checkpoints are written, and which of them stay."""

from pathlib import Path
from typing import Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class Checkpoints(ModelCheckpoint):
    """Writes last.ckpt every so many steps and at the end of training, and keeps the best ones if asked.

    Args:
        every_n_steps: Number of optimiser steps between two checkpoints.
        monitor: Metric that decides which checkpoints are best, for instance val/hypersim/abs_rel.
        mode: Whether the best value of monitor is the smallest (min) or the largest (max).
        keep: Number of checkpoints to keep beside last.ckpt: the best by monitor, or the newest without it;
            -1 keeps all, 0 none.
        folder: Where to write; None is the folder checkpoints in the run's own folder.
    """

    def __init__(
        self,
        every_n_steps: int = 1000,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        keep: int = 0,
        folder: str | None = None,
    ) -> None:
        super().__init__(
            dirpath=folder,
            filename="step{step:06d}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode,
            save_top_k=keep,
            save_last=True,
            every_n_train_steps=every_n_steps,
            enable_version_counter=False,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final weights, also where the last step is none of those that are due."""
        if self._last_global_step_saved != trainer.global_step and not self._should_skip_saving_checkpoint(trainer):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            self._save_last_checkpoint(trainer, candidates)


def newest_run(folder: Path) -> Path | None:
    """Return the newest run ``version_N`` in a folder that holds a last.ckpt, or None.

    Args:
        folder: folder of all runs of one name.
    """
    numbered = {int(run.name.removeprefix("version_")): run for run in folder.glob("version_*") if _is_run(run)}
    return numbered[max(numbered)] if numbered else None


def last_checkpoint(run: Path) -> Path:
    """Return where a run keeps its last checkpoint."""
    return run / "checkpoints" / "last.ckpt"


def _is_run(folder: Path) -> bool:
    return folder.name.removeprefix("version_").isdigit() and last_checkpoint(folder).is_file()
