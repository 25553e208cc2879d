"""A micro-batch of the largest image size before the first step, so that memory runs out at once or not at all."""

from dataclasses import replace
from math import prod

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, Trainer

from geometry.batch import GeometryBatch
from geometry.contract import training_data
from lightning_modules.training.compilation_proof import CompilationProof
from lightning_modules.training.trained_module import TrainedModule


class LargestFirst(Callback):
    """Takes forward and backward pass at the largest image size before a run's first step, where sizes differ.

    The allocator of GPUs keeps what it once got, in pieces of the sizes that were asked for. Small images can use the
    pieces of large ones; the other way round, large images take new memory beside the old. A lack of memory shows
    before the first step, too, and not when the largest images first come.

    The images are those of the first batch, their pixels repeated. Weights, gradients, optimiser, random numbers and
    the order of training stay as they are.

    Args:
        proof: where compiled parts are compared; they are, at the largest size, before they run.
        devices: kinds of devices whose allocator is like that.
    """

    def __init__(self, proof: CompilationProof, devices: tuple[str, ...] = ("cuda",)) -> None:
        self.proof, self.devices = proof, devices
        self._is_done = False

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: TrainedModule, batch: GeometryBatch, batch_idx: int
    ) -> None:
        """Take the passes, on every rank at once, before the first step of a process."""
        device = batch.image.device
        if self._is_done or device.type not in self.devices:
            return
        self._is_done = True
        sizes = training_data(trainer.datamodule).train_image_sizes  # type: ignore[attr-defined]
        if len(sizes) < 2:
            return
        largest = _enlarged(batch, max(sizes, key=prod))
        self.proof.check(pl_module, largest)
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
            with trainer.precision_plugin.train_step_context():
                loss, _ = pl_module.training_loss(largest, [0] * len(largest))
            loss.backward()
        pl_module.zero_grad()


def _enlarged(batch: GeometryBatch, size: tuple[int, int]) -> GeometryBatch:
    """Return a batch of images of another size, whose pixels are the nearest ones."""
    image = F.interpolate(batch.image, size, mode="nearest")
    return replace(batch, image=image, targets={name: each.resized(size) for name, each in batch.targets.items()})
