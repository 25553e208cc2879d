"""An exponential moving average of the trained weights: smoother than the last step, and often better."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor, nn

from geometry.errors import InputError
from lightning_modules.estimator import Estimator
from lightning_modules.networks.sharding import assemble, gather, local, norm_over_ranks, reshard, shard
from lightning_modules.training.logging_steps import is_logging_step
from lightning_modules.training.stored_weights import describe_mismatch

CHECKPOINT_KEY = "ema_state_dict"


class ExponentialMovingAverage(Callback):
    """Keeps an exponential moving average (EMA) of the weights that train, and validates on it.

    Update: ``average = d * average + (1 - d) * weights`` after every optimiser step; skipped steps and micro-batches
    change nothing. A checkpoint holds the average under the key ema_state_dict, with the names of state_dict. The
    trained weights themselves are never replaced: a run with and without EMA trains the same.

    Lightning's EMAWeightAveraging does not serve here: it copies the frozen VAE as well, puts the average into
    state_dict, and cannot load a checkpoint that holds only what trains.

    Args:
        decay: Share of the average that stays at every step; 0.999 averages over about 1,000 steps. None keeps no
            average.
        warmup: Begin with a smaller decay, (1 + n) / (10 + n) at update n, so that the first weights are forgotten
            sooner.
        validate: Validate the average in place of the weights of the last step.
        on_cpu: Keep the average in main memory. It saves 4 bytes per weight on the GPU and costs a copy of
            the weights at every step.

    Raises:
        InputError: decay is no number between 0 and 1.
    """

    def __init__(
        self, decay: float | None = None, warmup: bool = True, validate: bool = True, on_cpu: bool = False
    ) -> None:
        if decay is not None and not 0 < decay < 1:
            raise InputError(f"ema.decay must lie between 0 and 1, got {decay}; 0.999 averages over 1,000 steps.")
        self.decay = decay
        self.warmup = warmup
        self.validate = validate
        self.on_cpu = on_cpu
        self._average: dict[str, Tensor] = {}
        self._num_updates = torch.zeros((), dtype=torch.int64)
        self._last_step = 0
        self.is_in_place = False  # whether the average stands in the place of the weights just now

    def setup(self, trainer: Trainer, pl_module: Estimator, stage: str) -> None:  # type: ignore[override]
        """Forget the average of an earlier fit.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            stage: fit, validate or another of Lightning's stages.
        """
        if stage == "fit":
            self._average = {}
            self._num_updates = torch.zeros((), dtype=torch.int64)

    def on_fit_start(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Start from the weights, or from the average of a checkpoint.

        Raises:
            InputError: weights train in half precision, where an average cannot move.
        """
        if self.decay is None:
            return
        device = torch.device("cpu") if self.on_cpu else pl_module.device
        for name, weight in _trained(pl_module):
            if weight.dtype != torch.float32:
                raise InputError(
                    f"ema.decay needs weights in float32, but {name} is {weight.dtype}: in half precision, an average "
                    "loses its updates. Use trainer.precision bf16-mixed, 16-mixed or 32-true."
                )
            self._average[name] = self._average.get(name, local(weight.detach())).to(device, copy=True)
        self._num_updates = self._num_updates.to(device)

    def on_train_start(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Note the step where the run stands."""
        self._last_step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: Estimator, *_: object) -> None:  # type: ignore[override]
        """Update the average if the batch ended an optimiser step. The host does not wait for the device."""
        if self.decay is None or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        took_step = pl_module.gradient_guard.took_step.to(self._num_updates.device)
        rate = (1 - self._current_decay()) * took_step
        self._num_updates += took_step
        for name, weight in _trained(pl_module):
            self._average[name].lerp_(local(weight).to(rate.device), rate)
        if is_logging_step(trainer, trainer.global_step):
            pl_module.log("train/ema_distance", self._distance(pl_module))

    def on_validation_start(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Put the average in the place of the weights."""
        if self.validate and self._average:
            self._swap(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Put the weights back, to the bit."""
        self._swap_back(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Estimator, exception: BaseException) -> None:  # type: ignore[override]
        """Put the weights back if a validation was interrupted."""
        self._swap_back(pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of updates; the average itself is in the checkpoint under a key of its own."""
        return {} if self.decay is None else {"num_updates": int(self._num_updates)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the number of updates.

        Args:
            state_dict: what ``state_dict`` returned.
        """
        if self._average:
            self._num_updates = torch.tensor(state_dict["num_updates"])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: Estimator, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Add the average to the checkpoint.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            checkpoint: the checkpoint that is about to be saved.
        """
        if not self._average:
            return
        average = gather({name: assemble(self._average[name], weight) for name, weight in _trained(pl_module)})
        if self.is_in_place:  # saved in the middle of a validation
            weights, average = average, {name: checkpoint["state_dict"][name] for name in average}
            checkpoint["state_dict"] = checkpoint["state_dict"] | weights
        checkpoint[CHECKPOINT_KEY] = average

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Estimator, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Take the average from the checkpoint.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            checkpoint: the checkpoint that is being loaded.

        Raises:
            InputError: the average lacks weights, or has others than those that train.
        """
        if self.decay is None:
            return
        average = checkpoint.get(CHECKPOINT_KEY)
        if average is None:
            rank_zero_info(
                "EMA: the checkpoint holds no average. "
                + ("It starts from the checkpoint's weights." if trainer.training else "The weights themselves count.")
            )
            return
        trained = dict(_trained(pl_module))
        found = describe_mismatch(average, trained, trained.keys())
        if found:
            raise InputError(
                f"the average in the checkpoint ({CHECKPOINT_KEY}) does not fit what trains: it {found}. Set the "
                "network as it was when the checkpoint was made, or leave ema.decay away."
            )
        self._average = {name: local(shard(tensor.float(), trained[name])) for name, tensor in average.items()}

    def _current_decay(self) -> Tensor:
        """Return the decay of the next update, a scalar on the average's device."""
        decay = torch.full((), self.decay or 0.0, device=self._num_updates.device)
        return decay.minimum((1 + self._num_updates) / (10 + self._num_updates)) if self.warmup else decay

    def _distance(self, pl_module: Estimator) -> Tensor:
        """Return the distance of average and weights relative to the length of the weights, a scalar."""
        trained = dict(_trained(pl_module))
        pairs = [
            (local(weight).to(self._average[name].device), self._average[name]) for name, weight in trained.items()
        ]
        apart = torch.stack([(weight - average).norm() for weight, average in pairs]).norm()
        length = torch.stack([weight.norm() for weight, _ in pairs]).norm()
        like = next(iter(trained.values()))
        return norm_over_ranks(apart, like) / norm_over_ranks(length, like)

    @torch.no_grad()
    def _swap(self, pl_module: Estimator) -> None:
        """Exchange weights and average in place, one by one, so that next to no memory is needed."""
        for name, weight in ((name, local(weight)) for name, weight in _trained(pl_module)):
            held = weight.clone()
            weight.copy_(self._average[name])
            self._average[name].copy_(held)
        self.is_in_place = not self.is_in_place

    def _swap_back(self, pl_module: Estimator) -> None:
        if self.is_in_place:
            reshard(pl_module.network)  # a validation that was interrupted has not
            self._swap(pl_module)


def _trained(pl_module: Estimator) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in pl_module.named_parameters() if weight.requires_grad)
