"""Clips gradients and keeps steps with non-finite gradients from touching the weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from geometry.errors import printable

# The loss scale of fp16 starts at 2^16, and each overflow halves it.
_SCALER_HALVINGS = 16


@dataclass
class _Step:
    """A step whose verdict is still on its way from the device to the host."""

    is_finite: Tensor
    arrived: torch.cuda.Event | None
    number: int
    sources: list[str]

    def wait(self) -> bool:
        if self.arrived is not None:
            self.arrived.synchronize()
        return bool(self.is_finite)


class GradientGuard:
    """Clips gradients by their norm, and skips optimiser steps whose gradients are not finite.

    Under DDP the gradients are averages over all ranks when they get here, so one rank's NaN is every rank's NaN and
    all ranks skip the same steps without a word between them. The host learns of a skipped step one step later, so
    that it never waits for the device, provided that the optimiser can skip by itself (fused ones can).

    Args:
        max_norm: largest norm of all gradients together; None clips nothing.
        max_skips_in_a_row: number of skipped steps in a row that ends the run.

    Attributes:
        took_step: bool scalar on the device: whether the last step was taken, not skipped.
    """

    def __init__(self, max_norm: float | None, max_skips_in_a_row: int) -> None:
        self.took_step = torch.tensor(True)
        self.max_norm = max_norm
        self.max_skips_in_a_row = max_skips_in_a_row
        self.num_skipped = 0
        self._in_a_row = 0
        self._allowed_in_a_row = max_skips_in_a_row
        self._sources: list[str] = []
        self._pending: _Step | None = None

    def note_source(self, dataset: str, keys: Iterable[str]) -> None:
        """Remember the samples of a micro-batch, to name them if its step must be skipped.

        Args:
            dataset: name of the data set.
            keys: sample ids.
        """
        self._sources.append(f"{dataset}: {', '.join(keys)}")

    def apply(self, optimizer: Optimizer, step: int, scaler: torch.amp.GradScaler | None = None) -> Tensor:
        """Clip, and arrange for the step to be skipped if a gradient is not finite.

        Args:
            optimizer: the optimiser that is about to step.
            step: number of the optimiser step, for the message.
            scaler: scaler of the loss in fp16. It skips steps of its own while it looks for a scale; those count
                less.

        Returns:
            Scalar, the norm before clipping.

        Raises:
            RuntimeError: too many steps in a row had to be skipped.
        """
        self.settle()
        self._allowed_in_a_row = self.max_skips_in_a_row + (_SCALER_HALVINGS if scaler is not None else 0)
        can_skip = getattr(optimizer, "_step_supports_amp_scaling", False)
        if scaler is not None and can_skip:
            scaler.unscale_(optimizer)  # for all other optimisers Lightning has done so
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        self.took_step = is_finite = norm.isfinite()
        if can_skip:
            optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
        elif not is_finite:
            for parameter in parameters:
                parameter.grad = None
        self._pending = _Step(*_to_host(is_finite), step, self._sources)
        self._sources = []
        return norm

    def settle(self) -> None:
        """Count the last step if it was skipped.

        Raises:
            RuntimeError: too many steps in a row had to be skipped.
        """
        step, self._pending = self._pending, None
        if step is None:
            return
        if step.wait():
            self._in_a_row = 0
            return
        self.num_skipped += 1
        self._in_a_row += 1
        samples = printable("; ".join(step.sources))
        rank_zero_warn(f"step {step.number} skipped: its gradients are not finite. Samples on this rank: {samples}")
        if self._in_a_row >= self._allowed_in_a_row:
            raise RuntimeError(
                f"the gradients of {self._in_a_row} steps in a row were not finite, the last of them step "
                f"{step.number} ({samples}). The weights are those of the last good step. Lower the learning rate, "
                "use a wider precision, or look at these samples."
            )


def _to_host(flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start copying a flag to the host, and return it with the event that tells of its arrival."""
    if not flag.is_cuda:
        return flag, None
    copy = torch.empty_like(flag, device="cpu", pin_memory=True).copy_(flag, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return copy, arrived
