"""Clips gradients, keeps non-finite ones from touching the weights, and notices when there is nothing to learn from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from geometry.batch import GeometryBatch
from geometry.errors import InputError, printable
from geometry.torch_internals import skips_by_itself
from lightning_modules.training.trained_module import TrainedModule

# The loss scale of fp16 starts at 2^16, and each overflow halves it.
_SCALER_HALVINGS = 16

# A single gradient of exactly 0 can be an accident of its samples.
_ZEROS_IN_A_ROW = 2
_NAMES_SHOWN = 10


@dataclass
class _Step:
    """A step whose verdict is still on its way from the device to the host."""

    verdict: Tensor
    arrived: torch.cuda.Event | None
    number: int
    sources: list[str]

    def wait(self) -> tuple[bool, bool]:
        """Return whether its gradients were finite, and whether they were exactly 0 under a loss that was not."""
        if self.arrived is not None:
            self.arrived.synchronize()
        is_finite, is_zero = self.verdict.tolist()
        return is_finite, is_zero


class GradientGuard(Callback):
    """Clips gradients by their norm, skips steps whose gradients are not finite, and notices gradients of exactly 0.

    Under DDP the gradients are averages over all ranks when they get here, so one rank's NaN is every rank's NaN and
    all ranks skip the same steps without a word between them. The host learns of a step one step later, so
    that it never waits for the device, provided that the optimiser can skip by itself (fused ones can).

    A gradient of exactly 0 in two steps in a row, with a loss that is not 0, means that nothing is learnt: what should
    train is cut off from the loss. Such steps are taken, for an optimiser goes on with its averages, but counted.

    Args:
        max_norm: largest norm of all gradients together; None clips nothing.
        max_skips_in_a_row: number of skipped steps in a row, or of steps without a gradient, that ends the run.

    Attributes:
        norm: scalar on the device, the norm of the gradients of the last step before clipping.
        took_step: bool scalar on the device: whether the last step was taken, not skipped.
        num_skipped: skipped steps so far.
        num_zero: steps so far whose gradient was exactly 0, as was that of the step before.
    """

    def __init__(self, max_norm: float | None, max_skips_in_a_row: int) -> None:
        self.norm = torch.tensor(0.0)
        self.took_step = torch.tensor(True)
        self.max_norm = max_norm
        self.max_skips_in_a_row = max_skips_in_a_row
        self.num_skipped = 0
        self.num_zero = 0
        self._in_a_row = 0
        self._zeros_in_a_row = 0
        self._allowed_in_a_row = max_skips_in_a_row
        self._sources: list[str] = []
        self._pending: _Step | None = None
        self._names: dict[nn.Parameter, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See to it that all that trains gets a gradient."""
        self.watch(pl_module.named_parameters())

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: GeometryBatch, batch_idx: int
    ) -> None:
        """Remember the samples of the micro-batch."""
        self.note_source(batch.dataset.name, batch.key)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TrainedModule, optimizer: Optimizer) -> None:  # type: ignore[override]
        """Clip the gradients, and skip the step if they are not finite.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            optimizer: the optimiser that is about to step.
        """
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self.norm = self.apply(optimizer, trainer.global_step, scaler, pl_module.step_losses)

    def watch(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Look at the next step whether each of these has a gradient.

        Args:
            parameters: what trains, with names.
        """
        self._names = {parameter: name for name, parameter in parameters if parameter.requires_grad}

    def note_source(self, dataset: str, keys: Iterable[str]) -> None:
        """Remember the samples of a micro-batch, to name them if its step must be skipped.

        Args:
            dataset: name of the data set.
            keys: sample ids.
        """
        self._sources.append(f"{dataset}: {', '.join(keys)}")

    def apply(
        self,
        optimizer: Optimizer,
        step: int,
        scaler: torch.amp.GradScaler | None = None,
        losses: Sequence[Tensor] = (),
    ) -> Tensor:
        """Clip, and arrange for the step to be skipped if a gradient is not finite.

        Args:
            optimizer: the optimiser that is about to step.
            step: number of the optimiser step, for the message.
            scaler: scaler of the loss in fp16. It skips steps of its own while it looks for a scale; those count
                less.
            losses: scalar losses of the step's micro-batches. If all are 0, so may be the gradient.

        Returns:
            Scalar, the norm before clipping.

        Raises:
            InputError: too many steps in a row had to be skipped, or brought nothing to learn from.
        """
        self.settle()
        self._allowed_in_a_row = self.max_skips_in_a_row + (_SCALER_HALVINGS if scaler is not None else 0)
        can_skip = skips_by_itself(optimizer)
        if scaler is not None and can_skip:
            scaler.unscale_(optimizer)  # for all other optimisers Lightning has done so
        self._say_what_lacks_a_gradient()
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self.max_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.max_norm, norm)
        self.took_step = is_finite = norm.isfinite()
        is_zero = norm == 0
        if losses:
            is_zero = is_zero & (torch.stack([loss.detach().to(norm.device) for loss in losses]) != 0).any()
        if can_skip:
            optimizer.found_inf = (~is_finite).float()  # type: ignore[attr-defined]
        elif not is_finite:
            for parameter in parameters:
                parameter.grad = None
        self._pending = _Step(*_to_host(torch.stack([is_finite, is_zero])), step, self._sources)
        self._sources = []
        return norm

    def settle(self) -> None:
        """Count the last step if it was skipped, or if its gradient was exactly 0 once more.

        Raises:
            InputError: too many steps in a row had to be skipped, or brought nothing to learn from.
        """
        step, self._pending = self._pending, None
        if step is None:
            return
        is_finite, is_zero = step.wait()
        self._in_a_row = 0 if is_finite else self._in_a_row + 1
        if is_finite:  # a step that is skipped tells nothing of the others
            self._zeros_in_a_row = self._zeros_in_a_row + 1 if is_zero else 0
        if not is_finite:
            self._count_skipped(step)
        elif self._zeros_in_a_row >= _ZEROS_IN_A_ROW:
            self._count_zero(step)

    def _count_skipped(self, step: _Step) -> None:
        self.num_skipped += 1
        samples = printable("; ".join(step.sources))
        rank_zero_warn(f"step {step.number} skipped: its gradients are not finite. Samples on this rank: {samples}")
        if self._in_a_row >= self._allowed_in_a_row:
            raise InputError(
                f"the gradients of {self._in_a_row} steps in a row were not finite, the last of them step "
                f"{step.number} ({samples}). The weights are those of the last good step. Lower the learning rate, "
                "use a wider precision, or look at these samples."
            )

    def _count_zero(self, step: _Step) -> None:
        self.num_zero += 1
        samples = "; ".join(step.sources)
        rank_zero_warn(
            f"step {step.number} taught nothing: its gradient is exactly 0, as in the step before, and its loss is not."
            f" Samples on this rank: {samples}"
        )
        if self._zeros_in_a_row >= max(self.max_skips_in_a_row, _ZEROS_IN_A_ROW):
            raise InputError(
                f"the gradients of {self._zeros_in_a_row} steps in a row were exactly 0 with a loss that was not, the "
                f"last of them step {step.number} ({samples}): nothing is learnt. Train without network.compile and in "
                "a wider precision to see whether they are the cause; else the loss does not depend on what trains."
            )

    def _say_what_lacks_a_gradient(self) -> None:
        """Name the watched tensors that the loss does not reach: weight decay aside, they would stay as they are."""
        names, self._names = self._names, {}
        missing = [name for parameter, name in names.items() if parameter.grad is None]
        if missing and len(missing) == len(names):
            raise InputError(
                f"none of the {len(names)} trained tensors ({missing[0]} ...) got a gradient: the loss does not depend "
                "on them, and nothing would be learnt."
            )
        if missing:
            shown = ", ".join(missing[:_NAMES_SHOWN]) + (" ..." if len(missing) > _NAMES_SHOWN else "")
            rank_zero_warn(
                f"{len(missing)} of {len(names)} trained tensors got no gradient in the first step and stay as they "
                f"are for as long as that is so: {shown}"
            )


def _to_host(flag: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Start copying a flag to the host, and return it with the event that tells of its arrival."""
    if not flag.is_cuda:
        return flag, None
    copy = torch.empty_like(flag, device="cpu", pin_memory=True).copy_(flag, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return copy, arrived
