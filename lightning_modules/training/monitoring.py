"""Curves that show whether training is healthy: how far steps move the weights, and how much memory they take."""

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_modules.estimator import Estimator
from lightning_modules.networks.sharding import local, norm_over_ranks
from lightning_modules.training.logging_steps import is_logging_step

_SAMPLES_PER_TENSOR = 4096


class UpdateRatio(Callback):
    """Logs the length of an optimiser step relative to the length of the weights, as train/update_ratio.

    Taken on steps that are logged, from up to 4,096 evenly spaced weights of every tensor, for a copy of all
    weights would take as much memory as the weights.
    """

    def __init__(self) -> None:
        self._before: list[Tensor] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Estimator, optimizer: Optimizer) -> None:  # type: ignore[override]
        """Remember the weights before the step.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            optimizer: the optimiser that is about to step.
        """
        if is_logging_step(trainer, trainer.global_step + 1):
            self._before = [_sample(weight) for weight in _weights(optimizer)]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Estimator, *_: object) -> None:  # type: ignore[override]
        """Log how far the step went."""
        before, self._before = self._before, []
        if not before:
            return
        optimizer = trainer.optimizers[0]
        after = [_sample(weight) for weight in _weights(optimizer)]
        moved = torch.stack([(new - old).norm() for new, old in zip(after, before, strict=True)]).norm()
        length = torch.stack([old.norm() for old in before]).norm()
        weight = _weights(optimizer)[0]
        pl_module.log("train/update_ratio", norm_over_ranks(moved, weight) / norm_over_ranks(length, weight))


class MemoryPeak(Callback):
    """Logs the most GPU memory that tensors took at once since the start, in GiB, as train/gpu_memory_peak_gib."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Estimator, *_: object) -> None:  # type: ignore[override]
        """Log every so many steps; without a GPU there is nothing to log."""
        if pl_module.device.type == "cuda" and is_logging_step(trainer, trainer.global_step):
            pl_module.log("train/gpu_memory_peak_gib", torch.cuda.max_memory_allocated(pl_module.device) / 2**30)


def _weights(optimizer: Optimizer) -> list[nn.Parameter]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _sample(weight: nn.Parameter) -> Tensor:
    """Return evenly spaced values of this device's part of a weight, scaled so that their norm estimates the part's."""
    values = local(weight.detach()).flatten()
    stride = max(1, -(-values.numel() // _SAMPLES_PER_TENSOR))
    return values[::stride].float() * stride**0.5
