"""What a metric of a modality is, and the one that every modality has."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torchmetrics import Metric

from geometry.batch import DatasetInfo, GeometryBatch, Target
from geometry.modalities import Modality


class GeometryMetric(Metric):
    """A metric of one data set, whose states are sums and whose ``compute`` returns scalars by name.

    Subclasses that want to see more than prediction, truth and mask (the image, the camera) replace ``add``.

    Attributes:
        headline: name of the scalar that sums up a validation; less is better.
        constant: name of what the best constant prediction scores as ``headline``; empty if that is not known.
        num_images: state that counts the images in which there was something to score.
        reference: name of what the metric is measured against where a benchmark has it (``GeometryBatch.references``);
            elsewhere, and if it is empty, that is the target of the modality.
        needs_reference: the metric says nothing of images without that reference.
        knows_modality: the metric takes predictions as the modality defines them, whatever its options. Others are
            given what ``undo`` of the modality makes of them.
    """

    knows_modality: ClassVar[bool] = False

    is_differentiable = False
    full_state_update = False
    headline: str
    constant: str = ""
    reference: str = ""
    needs_reference: ClassVar[bool] = False
    num_images: Tensor

    def for_dataset(self, dataset: DatasetInfo) -> Self:
        """Return a new metric of the same settings by the rules of a data set.

        Args:
            dataset: the data set.
        """
        return copy.deepcopy(self)

    def for_modality(self, modality: Modality) -> Self:
        """Return the metric as it has to be for a modality with its options; itself by default.

        Args:
            modality: what is predicted.
        """
        return self

    def add(self, prediction: Tensor, target: Target, batch: GeometryBatch) -> None:
        """Add images.

        Args:
            prediction: (B,C,H,W) float, of the target's size.
            target: the truth.
            batch: what else is known; its image may have another size.
        """
        if self.concerns(batch):
            self.update(prediction, *target)

    def concerns(self, batch: GeometryBatch) -> bool:
        """Say whether a batch has what the metric is measured against.

        Args:
            batch: images of one data set.
        """
        return not self.needs_reference or self.reference in batch.references

    def size_of(self, target: Target) -> tuple[int, int]:
        """Return the height and width that predictions must have; by default those of what they are measured against.

        Args:
            target: what the metric is measured against.
        """
        height, width = target.values.shape[-2:]
        return height, width

    def stay_alone(self) -> Self:
        """Let the metric be of one rank alone: it does not wait for others, which have other samples."""
        self.distributed_available_fn = _never
        return self


class MeanScores(GeometryMetric):
    """Scores of single images, of which the mean over images is taken; a subclass adds them in ``update``.

    Args:
        scores: names of the scores.
        counted: name of the state that their sums are divided by, where it is not the number of images.
    """

    sums: Tensor

    def __init__(self, scores: Sequence[str], counted: str = "num_images") -> None:
        super().__init__()
        self.scores, self.counted = tuple(scores), counted
        self.add_state("sums", torch.zeros(len(scores), dtype=torch.float64), dist_reduce_fx="sum")
        for count in dict.fromkeys(("num_images", counted)):  # in one order on all ranks
            self.add_state(count, torch.tensor(0), dist_reduce_fx="sum")

    def compute(self) -> dict[str, Tensor]:
        """Return each score by name; NaN if nothing was counted."""
        return dict(zip(self.scores, self.sums / getattr(self, self.counted), strict=True))


class ImageScores(MeanScores, ABC):
    """The mean of what images score one by one; a subclass says what that is."""

    @abstractmethod
    def scores_of(self, prediction: Tensor, target: Tensor, valid: Tensor, *more: Tensor) -> Tensor | None:
        """Return the scores (number of scores,) float64 of an image; None where there is nothing to score.

        Args:
            prediction: (C,H,W) float.
            target: (C,H,W) float: depth in metres or unit normals, for instance.
            valid: (1,H,W) bool, True somewhere.
            *more: what else the metric needs of the image.
        """

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor, *more: Tensor) -> None:
        """Add images; one without known pixels is not counted.

        Args:
            prediction: (B,C,H,W) float.
            target: (B,C,H,W) float.
            valid_mask: (B,1,H,W) bool.
            *more: (B,...), what else ``scores_of`` takes.
        """
        for image in zip(prediction, target, valid_mask, *more, strict=True):
            if image[2].any() and (found := self.scores_of(*image)) is not None:
                self.sums += found
                self.num_images += 1


class MeanError(MeanScores):
    """The mean of a modality's own error, and that of each image's mean value: over known pixels, then over images.

    Args:
        modality: What is predicted.
    """

    knows_modality = True
    higher_is_better: ClassVar[bool] = False  # type: ignore[misc]

    def __init__(self, modality: Modality) -> None:
        self.headline, self.constant = modality.error_name, f"{modality.error_name}_constant"
        super().__init__((self.headline, self.constant))
        self.modality = modality

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> None:
        """Add images.

        Args:
            prediction: (B,C,H,W) float.
            target: (B,C,H,W) float.
            valid_mask: (B,1,H,W) bool.
        """
        truth = Target(torch.where(valid_mask, target.double(), 0.0), valid_mask)
        count = valid_mask.sum(dim=(1, 2, 3))
        mean = truth.values.sum(dim=(2, 3), keepdim=True) / count.clamp(min=1)[:, None, None, None]
        for index, values in enumerate((prediction.double(), mean.expand_as(truth.values))):
            error = torch.where(valid_mask, self.modality.error(self.modality.align(values, truth), truth), 0.0)
            self.sums[index] += (error.sum(dim=(1, 2, 3)) / count.clamp(min=1)).sum()
        self.num_images += (count > 0).sum()


def all_scores(metrics: Iterable[Any]) -> dict[str, Tensor]:
    """Return the scalars of several metrics by name.

    Args:
        metrics: ``GeometryMetric`` each.
    """
    return {name: value for metric in metrics for name, value in metric.compute().items()}


def _never() -> bool:
    return False
