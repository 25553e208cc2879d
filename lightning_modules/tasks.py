"""What is predicted, and how that is trained and judged: a modality with its losses and metrics."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from geometry import modalities
from geometry.batch import DatasetInfo, GeometryBatch, Target
from geometry.errors import InputError, check_choice
from geometry.modalities import Modality
from geometry.modalities.normals import Frame
from geometry.normals import closest_member, convert_frame
from lightning_modules.losses import AngularLoss, ModalityLoss, ScaleShiftInvariantLoss
from lightning_modules.losses.base import Loss, LossInputs, total_loss
from lightning_modules.metrics import AffineInvariantDepth, NormalsError
from lightning_modules.metrics.base import GeometryMetric, MeanError

EnsembleBy = Literal["pixel", "member"]


class Task(nn.Module):
    """A modality to predict, with the losses that train it and the metrics that judge it.

    Args:
        modality: What is predicted.
        loss: The main loss. By default the mean error of the modality.
        extra_losses: Losses to add, such as GradientMatching; each is logged under its own name, and shares the
            alignment of the main loss.
        metrics: What is measured in validation and test; the first one's headline sums up. By default the mean error
            of the modality.
    """

    modality_class: ClassVar[type[Modality] | None] = None

    def __init__(
        self,
        modality: Modality,
        loss: Loss | None = None,
        extra_losses: list[Loss] | None = None,
        metrics: list[GeometryMetric] | None = None,
    ) -> None:
        super().__init__()
        self.modality = modality
        self.loss = loss or ModalityLoss(modality)
        self.extra_losses = nn.ModuleList(extra_losses or [])
        self._metrics = list(metrics or [MeanError(modality)])

    @property
    def headline_metric(self) -> str:
        """The scalar that sums up a validation; less is better."""
        return self._metrics[0].headline

    @property
    def constant_metric(self) -> str:
        """What the best constant prediction scores as ``headline_metric``; empty if that is not known."""
        return self._metrics[0].constant

    @property
    def members(self) -> "list[Task]":
        """The tasks that share the network, each of a single modality: the task itself."""
        return [self]

    @property
    def modalities(self) -> list[Modality]:
        """What is predicted, by all members."""
        return [member.modality for member in self.members]

    def parts_of(self, prediction: Tensor) -> "list[tuple[Task, Tensor]]":
        """Return each member with its channels of a prediction (B,C,H,W) of all."""
        return [(self, prediction)]

    def check_has_truth(self, batch: GeometryBatch) -> None:
        """Check that a batch holds the truth of all members.

        Raises:
            InputError: it does not; names the task and the data set.
        """
        for member in self.members:
            member.target(batch)

    @property
    def losses(self) -> list[Loss]:
        """All losses, the main one first."""
        return [self.loss, *self.extra_losses]

    @property
    def trained_parts(self) -> list[nn.Module]:
        """Modules of the losses that train along, such as projectors."""
        modules = [module for loss in self.losses for module in loss.modules() if not isinstance(module, Loss)]
        inner = {id(child) for module in modules for child in module.modules() if child is not module}
        return [module for module in modules if id(module) not in inner and any(module.parameters())]

    def target(self, batch: GeometryBatch) -> Target:
        """Return the truth of a batch.

        Raises:
            InputError: the batch holds none of this modality; names the task and the data set.
        """
        name = self.modality.name
        if name not in batch.targets:
            raise InputError(
                f"task {type(self).__name__} needs {name}, but data set {batch.dataset.name!r} does not deliver it. "
                f"Prepare the data set with {name}, make sure that the data module reads it, or leave the data set out."
            )
        return batch.targets[name]

    def predict(self, decoded: Tensor) -> Tensor:
        """Return the prediction (B,C,H,W) float32 that a decoded image (B,3,H,W) stands for."""
        return self.modality.from_image(decoded)

    def training_loss(
        self, prediction: Tensor, batch: GeometryBatch, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss, and further scalars worth logging by name.

        Args:
            prediction: (B,C,H,W) float32.
            batch: the images that were predicted.
            step: optimiser steps done before this one, over all starts of the run.
        """
        target = self.modality.as_predicted(self.target(batch))
        inputs = LossInputs(prediction, target, batch, self.loss, self.modality, step)
        return total_loss(inputs, self.extra_losses)  # type: ignore[arg-type]

    def target_image(self, batch: GeometryBatch) -> tuple[Tensor, Tensor]:
        """Return the truth as an image for the VAE, the one that ``predict`` turns into the truth.

        Returns:
            (B,3,H,W) float32 in [-1, 1], a constant where the truth is unknown; and (B,1,H,W) bool, where it is known.
        """
        target = self.target(batch)
        return self.modality.to_image(target), target.mask

    def make_metrics(self, dataset: DatasetInfo) -> list[GeometryMetric]:
        """Return new metrics by the rules of a data set.

        Args:
            dataset: the data set.
        """
        return [metric.for_dataset(dataset).for_modality(self.modality) for metric in self._metrics]

    def update_metrics(self, metrics: Sequence[GeometryMetric], prediction: Tensor, batch: GeometryBatch) -> None:
        """Add a validation batch to metrics made by ``make_metrics``.

        Args:
            metrics: the metrics.
            prediction: (B,C,H,W) float, of the target's size.
            batch: the images that were predicted.
        """
        for metric in (each for each in metrics if each.concerns(batch)):
            target = self.target_of(metric, batch)
            undone = prediction if metric.knows_modality else self.modality.undo(prediction, target)
            metric.add(undone, target, batch)

    def target_of(self, metric: GeometryMetric, batch: GeometryBatch) -> Target:
        """Return what a metric is measured against: the reference that it names, or the truth of the batch."""
        return batch.references.get(metric.reference) or self.target(batch)

    def visualize(self, prediction: Tensor, batch: GeometryBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return prediction, truth and error as visualisations, each (B,3,H,W) float32 in [0, 1]."""
        return self.modality.visualize(prediction, self.target(batch))

    def ensemble(self, members: Tensor) -> Tensor:
        """Return one prediction (B,C,H,W) for several predictions (N,B,C,H,W) of the same images."""
        return self.modality.ensemble(members)


class Depth(Task):
    """Depth up to scale and shift: the mean over the decoded channels, clamped to [-1, 1].

    Where the network learns a function g of depth (``parameterization``), losses compare in the space of g, and metrics
    fit scale and shift there and undo g: two numbers per image, as for linear depth.

    Args:
        loss: The main loss; the paper's by default.
        extra_losses: Losses to add, such as GradientMatching; each is logged under its own name, and sees depth after
            the main loss's scale and shift.
        metrics: What is measured in validation and test; the first one's headline sums up. By default affine-invariant
            depth.
        **options: What the modality ``Depth`` takes, such as the parameterization.
    """

    modality_class = modalities.Depth

    def __init__(
        self,
        loss: Loss | None = None,
        extra_losses: list[Loss] | None = None,
        metrics: list[GeometryMetric] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        modality = modalities.Depth(**options)
        super().__init__(modality, loss or ScaleShiftInvariantLoss(), extra_losses, metrics or [AffineInvariantDepth()])


class Normals(Task):
    """Surface normals: the decoded image divided by its length.

    Args:
        loss: The main loss; the paper's by default.
        frame: The camera frame that the network predicts normals in: opengl (x right, y up, z toward the viewer) is
            ours, dsine (x left) that of the checkpoints of the paper's authors, and opencv (x right, y down, z forward)
            that of GeoWizard. Predictions are converted to ours.
        extra_losses: Losses to add, such as GradientMatching; each is logged under its own name.
        metrics: What is measured in validation and test; the first one's headline sums up. By default angular errors.
        clip_decoded: Clip the decoded image to [-1, 1] before it is divided by its length, which turns vectors beyond.
            The pipelines of diffusers and of Marigold's authors do; this project and the paper's authors do not.
        ensemble_by: How several predictions become one. pixel takes for every pixel the one that is closest to the
            mean direction, as diffusers does; member takes one whole prediction, the closest to the mean angles, as the
            paper's authors do.
    """

    modality_class = modalities.Normals

    def __init__(
        self,
        loss: Loss | None = None,
        frame: Frame = "opengl",
        extra_losses: list[Loss] | None = None,
        metrics: list[GeometryMetric] | None = None,
        clip_decoded: bool = False,
        ensemble_by: EnsembleBy = "pixel",
    ) -> None:
        modality = modalities.Normals(frame)
        super().__init__(modality, loss or AngularLoss(), extra_losses, metrics or [NormalsError()])
        check_choice("task.ensemble_by", ensemble_by, get_args(EnsembleBy))
        self.frame, self.clip_decoded, self.ensemble_by = frame, clip_decoded, ensemble_by

    def predict(self, decoded: Tensor) -> Tensor:
        """Return the normals (B,3,H,W) float32 that a decoded image (B,3,H,W) stands for, clipped first if asked."""
        return super().predict(decoded.clamp(-1, 1) if self.clip_decoded else decoded)

    def ensemble(self, members: Tensor) -> Tensor:
        """Return one prediction (B,3,H,W) for several (N,B,3,H,W) of the same images."""
        if self.ensemble_by == "pixel":
            return super().ensemble(members)
        chosen = closest_member(torch.stack([convert_frame(each, "opengl", self.frame) for each in members]))
        return members[chosen, torch.arange(members.shape[1], device=members.device)]


def stock_task(modality: Modality) -> Task:
    """Return the task of a stock pipeline, which clips decoded normals; in exports of this project none are beyond.

    Args:
        modality: what the pipeline predicts.
    """
    if isinstance(modality, modalities.Normals):
        return Normals(frame=modality.frame, clip_decoded=True)
    return Task(modality)
