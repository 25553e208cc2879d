"""Which optimiser steps are logged, and the means of what happened between two of them."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor


def is_logging_step(trainer: Trainer, step: int) -> bool:
    """Say whether an optimiser step is one of those that the trainer logs.

    Args:
        trainer: the trainer, whose log_every_n_steps counts; 0 logs no step.
        step: number of steps taken, this one included.
    """
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and step % every == 0


Sums = dict[str, tuple[float, float]]


class Means:
    """Means of named scalars since they were last asked for, over all micro-batches, steps and ranks.

    Every micro-batch weighs the same. Values that are not finite are left out, for their steps are skipped; a mean of
    nothing else is NaN. Nothing waits for the device until ``take`` is called.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add what one micro-batch gave.

        Args:
            values: scalars by name; not every micro-batch needs to have every name.
        """
        for name, value in values.items():
            value = value.detach().float()
            is_finite = value.isfinite()
            total, count = self._sums.get(name, (torch.zeros_like(value), torch.zeros_like(value)))
            total, count = total.to(value.device), count.to(value.device)  # restored ones come from the host
            self._sums[name] = (total + torch.where(is_finite, value, 0.0), count + is_finite)

    def take(self) -> dict[str, float]:
        """Return the means of all ranks by name, and start anew. All ranks must call this together."""
        ranks = self.state()
        self._sums = {}
        means = {}
        for name in sorted({name for sums in ranks for name in sums}):
            total, count = (sum(sums[name][part] for sums in ranks if name in sums) for part in (0, 1))
            means[name] = total / count if count else float("nan")
        return means

    def state(self) -> list[Sums]:
        """Return every rank's sums and counts by name. All ranks must call this together."""
        own = {name: (total.item(), count.item()) for name, (total, count) in self._sums.items()}
        ranks = [own]
        if dist.is_available() and dist.is_initialized():
            # As objects: ranks may have seen different data sets.
            ranks = [own] * dist.get_world_size()
            dist.all_gather_object(ranks, own)
        return ranks

    def restore(self, ranks: list[Sums], rank: int, num_ranks: int) -> None:
        """Go on from what ``state`` returned in an earlier run.

        Args:
            ranks: the sums of the ranks of that run; if it had another number of ranks, the first one takes them all.
            rank: number of this rank.
            num_ranks: number of ranks now.
        """
        mine = ranks[rank : rank + 1] if len(ranks) == num_ranks else ranks if rank == 0 else []
        self._sums = {}
        for name, sums in ((name, sums) for own in mine for name, sums in own.items()):
            total, count = self._sums.get(name, (torch.zeros(()), torch.zeros(())))
            self._sums[name] = (total + sums[0], count + sums[1])
