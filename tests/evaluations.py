"""``python train.py test`` in this process, and what it writes."""

import json
import os
import signal

from lightning.pytorch import Callback

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
