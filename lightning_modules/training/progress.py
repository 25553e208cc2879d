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
        self._train_bar: tqdm | None = None
        self._val_bar: tqdm | None = None
        self._test_bar: tqdm | None = None
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

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Open the bar at the step where the run stands."""
        if self._train_bar is None:
            total = trainer.estimated_stepping_batches
            known = int(total) if 0 < total < float("inf") else None
            self._train_bar = self._open("train", known, "step", trainer.global_step)

    def on_train_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        pl_module: TrainedModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Advance, and show new metrics once a second."""
        bar = self._train_bar
        if bar is None:
            return
        if time.monotonic() - self._read_s >= _REFRESH_S or trainer.global_step == bar.total:
            self._read_s = time.monotonic()
            bar.set_postfix_str(_format(pl_module.bar_values), refresh=False)
        bar.update(trainer.global_step - bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bars, so that the message starts on a line of its own."""
        self._close()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open a bar that goes away again."""
        total = sum(int(number) for number in trainer.num_val_batches if number != float("inf"))
        self._val_bar = self._open("validate", total or None, "batch", leave=False)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance."""
        if self._val_bar is not None:
            self._val_bar.update()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the validation's bar."""
        if self._val_bar is not None:
            self._val_bar.close()
            note_closed(self._val_bar)

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
            self._close()
            self._test_loader = dataloader_idx
            total = trainer.num_test_batches[dataloader_idx]
            self._test_bar = self._open(batch.dataset.name, int(total), "batch")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance."""
        if self._test_bar is not None:
            self._test_bar.update()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._close()
        self._test_loader = -1

    def _close(self) -> None:
        for bar in (self._test_bar, self._val_bar, self._train_bar):
            if bar is not None:
                bar.close()
                note_closed(bar)
        self._test_bar = self._val_bar = self._train_bar = None

    def _open(self, name: str, total: int | None, unit: str, initial: int = 0, leave: bool = True) -> tqdm | None:
        if not self._enabled:
            return None
        interval_s = 0.1 if sys.stderr.isatty() else _REFRESH_IN_FILES_S
        bar = tqdm(
            desc=name, total=total, initial=initial, unit=unit, leave=leave, dynamic_ncols=True, mininterval=interval_s
        )
        note_open(bar)
        return bar


def _format(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in values.items())
