"""What every estimator shares: task, optimiser, metrics, logging and the contents of checkpoints."""

import math
import os
from collections.abc import Sequence
from typing import Any, cast

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from geometry.batch import GeometryBatch
from geometry.contract import training_data
from geometry.errors import InputError
from lightning_modules.metrics.base import GeometryMetric, all_scores
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.noise import seed_from
from lightning_modules.networks.sharding import shard_blocks
from lightning_modules.schedules import warmup_exponential
from lightning_modules.tasks import Task
from lightning_modules.trained_on import CHECKPOINT_KEY, TrainedOn, describe_training
from lightning_modules.training.checkpoint_states import check_states
from lightning_modules.training.compilation_proof import CompilationProof
from lightning_modules.training.gradients import GradientGuard
from lightning_modules.training.largest_first import LargestFirst
from lightning_modules.training.monitors import check_monitors
from lightning_modules.training.resumed_optimizer import StoredSettings
from lightning_modules.training.start import start_from
from lightning_modules.training.step_curves import StepCurves
from lightning_modules.training.strategy import FullySharded, UnshardedEvaluation
from lightning_modules.training.trained_module import TrainedModule
from lightning_modules.training.trainer_checks import check_image_sizes, check_trainer

_PAPER_STEPS = 20_000


class Estimator(TrainedModule):
    """Trains and validates a network on a task. Subclasses say how a prediction comes about and what it costs.

    Args:
        network: Network that is trained.
        task: What the network predicts: depth, normals or another task.
        optimizer: Class of the optimiser and its settings.
        warmup_steps: Optimiser steps over which the learning rate rises to its full value.
        decay_steps: Optimiser step at which the exponential decay of the learning rate ends; None is the
            trainer's max_steps, or 20,000 without one.
        final_lr_ratio: Share of the learning rate that is left at the end of the decay.
        gradient_clip_norm: Largest norm of the gradient; larger ones are scaled down. None does not clip.
        max_skips_in_a_row: End the run after so many steps in a row whose gradients were not finite, or exactly 0.
        init_from: Checkpoint of another run on the same base, of this or another estimator, or the folder of its runs,
            whose weights training starts from. A decoder that was frozen there starts as the base has it. A run that
            is resumed keeps its own.
    """

    def __init__(
        self,
        network: LatentNetwork,
        task: Task,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=3e-5, fused=True),
        warmup_steps: int = 100,
        decay_steps: int | None = None,
        final_lr_ratio: float = 0.01,
        gradient_clip_norm: float | None = 1.0,
        max_skips_in_a_row: int = 5,
        init_from: str | None = None,
    ) -> None:
        super().__init__()
        if warmup_steps < 0 or not 0 < final_lr_ratio <= 1:
            raise InputError(
                f"the model needs warmup_steps >= 0 and 0 < final_lr_ratio <= 1, got {warmup_steps} and "
                f"{final_lr_ratio}."
            )
        if (decay_steps is not None and decay_steps < 1) or max_skips_in_a_row < 1:
            raise InputError(
                f"the model needs decay_steps and max_skips_in_a_row of at least 1, got {decay_steps} and "
                f"{max_skips_in_a_row}."
            )
        if gradient_clip_norm is not None and not gradient_clip_norm > 0:
            raise InputError(f"the model needs a gradient_clip_norm above 0, or null, got {gradient_clip_norm}.")
        self.strict_loading = False  # frozen weights are in no checkpoint
        self.network = network
        self.task = task.members[0] if len(task.members) == 1 else task
        self.make_optimizer = optimizer
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.final_lr_ratio = final_lr_ratio
        self.init_from = init_from
        self.gradient_guard = GradientGuard(gradient_clip_norm, max_skips_in_a_row)
        self.step_curves = StepCurves(self.gradient_guard)
        self.compilation_proof = CompilationProof()
        self.largest_first = LargestFirst(self.compilation_proof)
        self.unsharded_evaluation = UnshardedEvaluation()
        self.val_dataset_names: list[str] = []
        self.val_metrics = nn.ModuleList()
        self.last_validated_step = -1
        self.trained_on: TrainedOn | None = None
        self.step_losses: list[Tensor] = []
        self.bar_values: dict[str, Tensor | float] = {}
        self._resumed: StoredSettings | None = None

    def configure_callbacks(self) -> list[Callback]:
        """Return what goes on beside the steps: clipping, curves, proof of compiled parts and others."""
        guards = (self.gradient_guard, self.largest_first, self.compilation_proof)
        own = (*guards, self.step_curves, self.unsharded_evaluation)
        return [callback for callback in own if callback not in self.trainer.callbacks]  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Check what the data module offers, and make one metric per validation data set.

        Args:
            stage: fit, validate or another of Lightning's stages.

        Raises:
            InputError: the trainer is told to clip gradients, too, images do not fit the network, or the weights to
                start from do not.
        """
        check_trainer(self.trainer)
        if stage == "test":
            return  # the callback Evaluation scores, on images of any size
        data = training_data(self.trainer.datamodule)  # type: ignore[attr-defined]
        check_image_sizes(self.network, data)
        self.val_dataset_names = [dataset.name for dataset in data.val_dataset_infos]
        self.val_metrics = nn.ModuleList(
            nn.ModuleList(self.task.make_metrics(dataset)) for dataset in data.val_dataset_infos
        )
        if stage == "fit":
            self.trained_on = describe_training(data.image_sizes, self.task.modalities)
            check_monitors(self)
            for loss in self.task.losses:
                loss.attach(self.network)
        if stage == "fit" and self.init_from is not None:
            start_from(self, self.init_from)

    def configure_model(self) -> None:
        """Shard what trains over the devices, if the strategy is to.

        Raises:
            InputError: the network does not know how.
        """
        if not isinstance(self.trainer.strategy, FullySharded) or self._is_sharded():
            return
        assert self.device_mesh is not None, "the strategy has made it"
        self.shard(self.device_mesh["data_parallel"])

    def shard(self, mesh: DeviceMesh) -> None:
        """Shard what trains over devices.

        Args:
            mesh: the devices.

        Raises:
            InputError: the network does not know how.
        """
        self.network.shard(mesh)
        for part in self.task.trained_parts:
            shard_blocks(part, [], mesh)
        if not self._is_sharded():
            raise InputError(
                f"{type(self.network).__name__} does not shard all of its weights over devices (its method shard): "
                "use trainer.strategy ddp."
            )

    def on_fit_start(self) -> None:
        """Put the trained parts into training mode (loaded models come in eval mode), and the settings of now in force.

        Raises:
            InputError: the checkpoint was trained with another optimiser.
        """
        self.network.train()
        schedules = self.trainer.lr_scheduler_configs
        if self._resumed is not None and schedules:
            self._resumed.follow(self.trainer.optimizers[0], schedules[0].scheduler)
        self._resumed = None

    def training_step(self, batch: GeometryBatch, batch_idx: int) -> Tensor:
        """Return the loss of a micro-batch.

        Args:
            batch: images of one data set.
            batch_idx: number of the micro-batch in the epoch.
        """
        # Not batch_idx: Lightning counts it from 0 again when a run is resumed within an epoch.
        moment = (os.environ.get("PL_GLOBAL_SEED", "0"), self.global_step, len(self.step_losses))
        loss, extras = self.training_loss(batch, [seed_from(*moment, key) for key in batch.key])
        self.step_losses.append(loss.detach())
        self.step_curves.add(loss, batch.dataset.name, extras)
        # A loss that is not finite can have a finite gradient. Made NaN, it is averaged into every rank's gradient.
        return loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)

    def validation_step(self, batch: GeometryBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Add a batch to its data set's metric and return the prediction.

        Args:
            batch: images of one data set.
            batch_idx: number of the batch.
            dataloader_idx: number of the data set.
        """
        prediction = self.predict_batch(batch.image, batch, [seed_from(key) for key in batch.key])
        self.task.update_metrics(self._metrics_of(dataloader_idx), prediction, batch)
        return {"prediction": prediction}

    def on_validation_epoch_end(self) -> None:
        """Log every data set's metrics as ``val/<data set>/<metric>``."""
        for index, name in enumerate(self.val_dataset_names):
            metrics = self._metrics_of(index)
            self.log_dict({f"val/{name}/{key}": value for key, value in all_scores(metrics).items()})
            for metric in metrics:
                metric.reset()
        self.last_validated_step = self.global_step

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser over what trains, and its schedule, stepped with the optimiser."""
        try:
            optimizer = self.make_optimizer(p for p in self.parameters() if p.requires_grad)
        except (TypeError, ValueError, RuntimeError) as error:  # whatever the optimiser refuses
            raise InputError(f"model.optimizer cannot be made like this: {error}.") from error
        rates = [group["lr"] for group in optimizer.param_groups]
        if not all(0 <= rate < math.inf for rate in rates):
            raise InputError(f"model.optimizer needs a finite lr of at least 0, got {rates[0]}.")
        max_steps = self.trainer.max_steps
        decay_steps = self.decay_steps or (max_steps if max_steps > 0 else _PAPER_STEPS)
        scheduler = LambdaLR(
            optimizer, lambda step: warmup_exponential(step, self.warmup_steps, decay_steps, self.final_lr_ratio)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Begin the losses of the next step.

        Args:
            optimizer: the optimiser that is about to step.
        """
        self.step_losses = []

    def on_train_end(self) -> None:
        """Hear of the last step, too."""
        self.gradient_guard.settle()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep only what trains, and say what it is trained on.

        Args:
            checkpoint: the checkpoint that is about to be saved.
        """
        trained = self.trained_names()
        checkpoint["state_dict"] = {name: t for name, t in checkpoint["state_dict"].items() if name in trained}
        if self.trained_on is not None:
            checkpoint[CHECKPOINT_KEY] = self.trained_on.to_record()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint fits what trains.

        Args:
            checkpoint: the checkpoint that is about to be loaded.

        Raises:
            InputError: trained weights are missing, unknown or of another shape, or the trainer cannot go on from the
                other states.
        """
        self.check_fits(checkpoint["state_dict"])
        check_states(checkpoint, self.trainer, self)
        self._resumed = StoredSettings(checkpoint)

    def _is_sharded(self) -> bool:
        return all(isinstance(parameter, DTensor) for parameter in self.parameters() if parameter.requires_grad)

    def _metrics_of(self, dataloader_idx: int) -> Sequence[GeometryMetric]:
        if dataloader_idx >= len(self.val_metrics):
            raise InputError(
                f"the data module names {len(self.val_metrics)} validation data sets in val_dataset_infos, but "
                f"delivers more: no name for number {dataloader_idx + 1}."
            )
        return cast(Sequence[GeometryMetric], self.val_metrics[dataloader_idx])
