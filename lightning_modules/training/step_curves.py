"""The curves of training: losses, learning rate, gradient norm and steps that brought nothing, under train/..."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_modules.lightning_internals import logged_step
from lightning_modules.training.gradients import GradientGuard
from lightning_modules.training.logging_steps import Means, Sums, is_logging_step
from lightning_modules.training.resuming import count_logged_steps_anew
from lightning_modules.training.trained_module import TrainedModule


class StepCurves(Callback):
    """Logs what a person watches, and keeps it across checkpoints.

    On steps that are logged: the learning rate and the gradient norm of this very step, and the means of everything
    else since the last such step, over all micro-batches and ranks. Under ``loss``, for the progress bar alone, the
    loss of every step on this rank.

    Args:
        guard: what clips the gradients, and knows their norm; it must have its turn before this callback.
    """

    def __init__(self, guard: GradientGuard) -> None:
        self.guard = guard
        self._means = Means()
        self._stored_means: list[Sums] = []

    def add(self, loss: Tensor, dataset: str, extras: Mapping[str, Tensor]) -> None:
        """Add what a micro-batch gave. The host does not wait for the device.

        Args:
            loss: scalar.
            dataset: name of the data set that the micro-batch came from.
            extras: further scalars by name.
        """
        self._means.add({"loss": loss, f"loss_{dataset}": loss, **extras})

    def on_train_start(self, trainer: Trainer, pl_module: TrainedModule) -> None:  # type: ignore[override]
        """Go on with the means of the run that is resumed."""
        self._means.restore(self._stored_means, trainer.global_rank, trainer.world_size)
        self._stored_means = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: TrainedModule, *_: object) -> None:  # type: ignore[override]
        """Keep the steps of the curves right in a run that is extended."""
        count_logged_steps_anew(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: TrainedModule, optimizer: Optimizer) -> None:  # type: ignore[override]
        """Log the step that is about to be taken.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            optimizer: the optimiser.
        """
        pl_module.bar_values["loss"] = torch.stack(pl_module.step_losses).mean()
        if not is_logging_step(trainer, trainer.global_step + 1):
            return
        means = {f"train/{name}": mean for name, mean in self._means.take().items()}
        of_sources = {name: means.pop(name) for name in list(means) if name.startswith("train/loss_")}
        pl_module.log_dict(means)
        # Not by pl_module.log: Lightning would repeat the value of a data set that no batch has come from since.
        for logger in trainer.loggers:
            logger.log_metrics(of_sources, logged_step(trainer))
        pl_module.log("train/grad_norm", self.guard.norm)
        pl_module.log("train/lr", optimizer.param_groups[0]["lr"])
        pl_module.log("train/skipped_steps", float(self.guard.num_skipped))
        pl_module.log("train/zero_gradient_steps", float(self.guard.num_zero))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: TrainedModule, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Keep the means that are not logged yet; all ranks come here together.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            checkpoint: the checkpoint that is about to be saved.
        """
        checkpoint["means"] = self._means.state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: TrainedModule, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Take the means of a checkpoint, once training starts.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            checkpoint: the checkpoint that is being loaded.
        """
        self._stored_means = checkpoint.get("means", [])
