"""One progress bar over the steps of a run, with the loss and the time that is left."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from lightning_modules.command_line.bars import note_closed, note_open
from lightning_modules.training.trained_module import TrainedModule

_REFRESH_S = 1.0
_REFRESH_IN_FILES_S = 30.0


class StepProgress(ProgressBar):
    """Shows optimiser steps done and to do, their rate, the time left, the loss and images per second.

    Metrics are read once a second at most, for reading them makes the host wait for the device. Where the output
    is no terminal, a line is written every 30 seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bars: dict[str, tqdm] = {}
        self._test_loader = -1
        self._read_s = 0.0

    def enable(self) -> None:
        """Show the bar; Lightning calls this on the first rank."""
        self._enabled = True

    def disable(self) -> None:
        """Hide the bar; Lightning calls this on all other ranks."""
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Print above the bar."""
        if self._enabled:
            tqdm.write(" ".join(map(str, args)), **kwargs)

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        """Open the bar at the step where the run stands."""
        if "train" not in self._bars:
            total = trainer.estimated_stepping_batches
            known = int(total) if 0 < total < float("inf") else None
            self._open("train", "train", known, "step", trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: TrainedModule, *_: object) -> None:  # type: ignore[override]
        """Advance, and show new metrics once a second."""
        bar = self._bars.get("train")
        if bar is None:
            return
        if time.monotonic() - self._read_s >= _REFRESH_S or trainer.global_step == bar.total:
            self._read_s = time.monotonic()
            bar.set_postfix_str(_format(pl_module.bar_values), refresh=False)
        bar.update(trainer.global_step - bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close("train")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bars, so that the message starts on a line of its own."""
        self._close(*self._bars)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar that goes away again."""
        total = sum(int(number) for number in trainer.num_val_batches if number != float("inf"))
        self._open("validate", "validate", total or None, "batch", leave=False)

    def on_validation_batch_end(self, *_: object) -> None:
        """Advance."""
        self._advance("validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the validation's bar."""
        self._close("validate")

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Open a bar for every data set."""
        if dataloader_idx != self._test_loader:
            self._close("test")
            self._test_loader = dataloader_idx
            total = trainer.num_test_batches[dataloader_idx]
            self._open("test", batch.dataset.name, int(total), "batch")

    def on_test_batch_end(self, *_: object) -> None:
        """Advance."""
        self._advance("test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close("test")
        self._test_loader = -1

    def _advance(self, stage: str) -> None:
        if stage in self._bars:
            self._bars[stage].update()

    def _close(self, *stages: str) -> None:
        for bar in [self._bars.pop(stage) for stage in stages[::-1] if stage in self._bars]:
            bar.close()
            note_closed(bar)

    def _open(self, stage: str, name: str, total: int | None, unit: str, initial: int = 0, leave: bool = True) -> None:
        if not self._enabled:
            return
        interval_s = 0.1 if sys.stderr.isatty() else _REFRESH_IN_FILES_S
        self._bars[stage] = tqdm(
            desc=name, total=total, initial=initial, unit=unit, leave=leave, dynamic_ncols=True, mininterval=interval_s
        )
        note_open(self._bars[stage])


def _format(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in values.items())
