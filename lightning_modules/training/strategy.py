"""Strategies that training works with, and the one that shards weights, gradients and states (FSDP2)."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor
from torch.optim import Optimizer

from geometry.errors import InputError
from lightning_modules.lightning_internals import hold_one_copy
from lightning_modules.networks.sharding import gather, local, reshard, shard, unshard
from lightning_modules.training.trained_module import TrainedModule


class FullySharded(ModelParallelStrategy):
    """Shards what trains over all devices; its checkpoints are those of every other strategy.

    Every device keeps its share of weights, gradients and optimiser states, and gathers the rest of a block's weights
    while it computes that block. What is frozen is whole on every device. Lightning's own class shards single layers
    by default, reads weights before anyone has checked whether they fit, and writes states of the optimiser that no
    other strategy can read.

    Args:
        process_group_backend: What the processes talk through; None is nccl between GPUs and gloo between CPUs.
        timeout: How long a process waits for the others before it gives up.
    """

    def __init__(self, process_group_backend: str | None = None, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(
            save_distributed_checkpoint=False, process_group_backend=process_group_backend, timeout=timeout
        )

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Say that checkpoints are read as early as elsewhere; the weights are sharded by then."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Say that Lightning is to call ``load_optimizer_state_dict``."""
        return True

    def setup_environment(self) -> None:
        """Connect the processes; all devices together hold one copy of the weights."""
        hold_one_copy(self, self.num_nodes * self.num_processes)
        super().setup_environment()

    def setup(self, trainer: Trainer) -> None:
        """Get ready, and let validation do without inference mode, whose tensors training could not use after it.

        Args:
            trainer: the trainer.
        """
        for loop in (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop):
            loop.inference_mode = False
        super().setup(trainer)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return what trains: whole, in main memory and on the first rank alone. All ranks must call this together."""
        assert self.lightning_module is not None
        return gather({name: p for name, p in self.lightning_module.named_parameters() if p.requires_grad})

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:  # noqa: ANN401
        """Return the content of a checkpoint, on every rank; weights and states are taken from it later.

        Args:
            checkpoint_path: where it is.
            weights_only: whether to read nothing but tensors and plain values.
        """
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this rank's part of the weights.

        Args:
            checkpoint: what ``load_checkpoint`` returned.
            strict: not used; the estimator has checked what the checkpoint holds.
        """
        assert self.lightning_module is not None
        stored = checkpoint["state_dict"]
        with torch.no_grad():
            for name, weight in self.lightning_module.named_parameters():
                if name in stored:
                    local(weight).copy_(local(shard(stored[name], weight)))

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the state of an optimiser: whole, in main memory, and complete on the first rank alone.

        Args:
            optimizer: the optimiser.
        """
        state: dict[str, Any] = Strategy.optimizer_state(self, optimizer)
        return {**state, "state": {number: gather(values) for number, values in state["state"].items()}}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this rank's part of the optimisers' states.

        Args:
            checkpoint: what ``load_checkpoint`` returned.
        """
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            parts = {number: _shard(values, weights[number]) for number, values in state["state"].items()}
            optimizer.load_state_dict({**state, "state": parts})


def _shard(values: Mapping[str, Any], weight: Tensor) -> dict[str, Any]:
    """Shard the states of a weight like the weight itself; what has another shape (a count of steps) is not sharded."""
    fits = {name: isinstance(value, Tensor) and value.shape == weight.shape for name, value in values.items()}
    return {name: shard(value, weight) if fits[name] else value for name, value in values.items()}


class UnshardedEvaluation(Callback):
    """Keeps the weights unsharded while a model is validated or tested, so that ranks may have unequally many batches.

    Weights that are not sharded stay as they are.
    """

    def on_validation_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:  # type: ignore[override]
        """Unshard the weights."""
        unshard(pl_module.network)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: TrainedModule) -> None:  # type: ignore[override]
        """Shard the weights again."""
        reshard(pl_module.network)

    on_test_start = on_validation_start  # type: ignore[assignment]
    on_test_epoch_end = on_validation_epoch_end  # type: ignore[assignment]


def check_strategy(strategy: Strategy) -> None:
    """Check that a strategy is one that training and its checkpoints work with.

    Args:
        strategy: the trainer's strategy.

    Raises:
        InputError: it is not.
    """
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy | FullySharded):
        raise InputError(
            f"trainer.strategy {type(strategy).__name__} is not supported: training could not go on from its "
            "checkpoints. Use ddp, or configs/hardware/fsdp.yaml to shard the weights over devices."
        )
