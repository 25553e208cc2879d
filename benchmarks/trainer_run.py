"""Some steps of the real trainer on real batches: what the trainer itself and waiting for data add to a step."""

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from benchmarks.measuring import clock, summarize
from benchmarks.models import Settings
from datamodules import DatasetSource, GeometryDataModule
from lightning_modules.training.callbacks import Throughput


class StepTimes(Callback):
    """Notes when optimiser steps end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:  # noqa: ANN401
        """Note the time where the batch was the last of a step."""
        if trainer.global_step > len(self.ends):
            self.ends.append(clock(trainer.strategy.root_device))


class WaitShare(CSVLogger):
    """Keeps the last logged share of time spent waiting for data."""

    share = float("nan")

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        """Keep the share."""
        self.share = float(metrics.get("train/data_wait_share", self.share))


def trainer_run(settings: Settings, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train some steps on a prepared data set and return the seconds per step and the share of waiting.

    On a CPU the seconds are processor time of this process, which does not count what loader processes do.
    """
    times, num_steps = StepTimes(), options.warmup + options.repeats
    data = GeometryDataModule(
        [DatasetSource(str(options.data))],
        val_datasets=[],
        batch_size=settings.batch_size,
        num_workers=options.workers,
    )
    with tempfile.TemporaryDirectory() as folder:
        logger = WaitShare(folder)
        trainer = Trainer(
            accelerator="gpu" if options.device.type == "cuda" else "cpu",
            devices=1,
            precision=settings.precision,  # type: ignore[arg-type]
            max_steps=num_steps,
            accumulate_grad_batches=max(1, options.images // settings.batch_size),
            log_every_n_steps=options.repeats,
            callbacks=[times, Throughput()],
            logger=logger,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(settings.build(base, options.device), datamodule=data)
    ends = times.ends[options.warmup - 1 :]
    seconds = [after - before for before, after in pairwise(ends)]
    return {"seconds_per_step": summarize(seconds), "data_wait_share": logger.share, "workers": options.workers}
