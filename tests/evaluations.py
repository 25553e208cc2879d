"""``python train.py test`` in this process, and what it writes."""

import json
import os
import signal
from datetime import timedelta

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy

import train


class KillIn(Callback):
    """Kills this process when a sample of a data set has been scored.

    Args:
        dataset: Name of the data set.
        sample: Number of the sample.
    """

    def __init__(self, dataset: str, sample: int) -> None:
        self.dataset, self.sample = dataset, sample

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if (batch.dataset.name, batch_idx) == (self.dataset, self.sample):
            os.kill(os.getpid(), signal.SIGKILL)


def run(*arguments):
    train.main(["test", *map(str, arguments)])


def options_for(base, folder):
    """Return the options that score depth of a base on the archives in a folder, into another folder beside them."""
    return [
        "--model=lightning_modules.SingleStepEstimator",
        "--model.network=StableDiffusion",
        f"--model.network.base={base}",
        "--model.task=lightning_modules.Depth",
        "--data=datamodules.Benchmarks",
        f"--data.root={folder / 'data'}",
        "--data.num_workers=0",
        f"--trainer.default_root_dir={folder / 'runs'}",
        "--trainer.accelerator=cpu",
        f"--evaluation.output={folder / 'out'}",
    ]


def trainer_on(ranks, evaluation):
    """Return a trainer that evaluates on so many processes."""
    return Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=DDPStrategy(start_method="fork", timeout=timedelta(seconds=120)) if ranks > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[evaluation],
    )


def files_in(folder):
    """Return the content of all files below a folder, by their names."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def results_in(folder):
    return json.loads((folder / "results.json").read_text())


def calibration_of(error, spread, num_shares=20):
    """Curves of sparsification of the pixels (N,) of an image, written plainly: by the spread, and by the error."""
    curves = []
    for doubt in (spread, error):
        ranked = error[doubt.argsort()[::-1]]
        left = [ranked[len(ranked) * number // num_shares :].mean() for number in range(num_shares)]
        curves.append([value / error.mean() for value in left])
    return curves
