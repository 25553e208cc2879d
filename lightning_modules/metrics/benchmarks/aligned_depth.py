"""Depth metrics by the rules of one protocol."""

import math
from typing import ClassVar, Self

import torch.nn.functional as F
from torch import Tensor

from geometry.batch import DatasetInfo
from geometry.parameterization import Parameterization
from lightning_modules.metrics.base import ImageScores, MeanScores
from lightning_modules.metrics.benchmarks.protocols import Aligned, protocol_named
from lightning_modules.metrics.depth_scores import DEPTH_METRICS, depth_scores


class AlignedMetric(MeanScores):
    """A metric of depth that a protocol has brought to metres; the mean of its scores over what is counted.

    Attributes:
        score_names: names of the scores, in their order, without the protocol.
        headline_score: name of the score that sums up; empty is the first one.
        counted_by: name of the state that the sums are divided by.
        default_protocol: name of the protocol where none is given.

    Args:
        protocol: Name of the protocol: least_squares, least_squares_disparity, ransac_log, median or metric; None is
            the metric's own default.
        space: The space in which predictions are known up to scale and shift; by default depth itself.
        limits: Smallest and largest depth that can be true. Datasets bring their own.
        max_fit_size_px: Fit on images downsampled to this longest side. Datasets bring their own.
    """

    knows_modality = True
    score_names: ClassVar[tuple[str, ...]]
    headline_score: ClassVar[str] = ""
    counted_by: ClassVar[str] = "num_images"
    default_protocol: ClassVar[str] = "ransac_log"

    def __init__(
        self,
        protocol: str | None = None,
        space: Parameterization | None = None,
        limits: tuple[float, float] = (0.0, math.inf),
        max_fit_size_px: int | None = None,
    ) -> None:
        found = protocol_named(self.default_protocol if protocol is None else protocol)
        super().__init__([f"{found.name}/{name}" for name in self.score_names], self.counted_by)
        self.protocol, self.limits, self.max_fit_size_px = found, limits, max_fit_size_px
        self.space = space or Parameterization()
        self.headline = f"{found.name}/{self.headline_score or self.score_names[0]}"

    def for_dataset(self, dataset: DatasetInfo) -> Self:
        """Return a new metric with the depth range and the size for fitting of a dataset."""
        found = super().for_dataset(dataset)
        found.limits, found.max_fit_size_px = dataset.range_of("depth"), dataset.max_fit_size_px
        return found

    def align(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Aligned:
        """Return the way to metres of one image.

        Args:
            prediction: (1,H,W) float.
            target: (1,H,W) float, metres.
            valid_mask: (1,H,W) bool.
        """
        step = max(prediction.shape[-2:]) / (self.max_fit_size_px or math.inf)
        if step > 1:
            prediction, target, valid = (
                F.interpolate(t[None].float(), scale_factor=1 / step, mode="nearest")[0]
                for t in (prediction, target, valid_mask)
            )
            valid_mask = valid.bool()
        return self.protocol.align(prediction[valid_mask], target[valid_mask], self.space, self.limits)


class ProtocolDepth(ImageScores, AlignedMetric):
    """Depth metrics after the alignment of a protocol, ``<protocol>/abs_rel`` and so on; means of per-image metrics.

    An image without valid pixels is not counted. See ``lightning_modules.metrics.AffineInvariantDepth`` for the names.
    """

    score_names = DEPTH_METRICS

    @property
    def reference(self) -> str:  # type: ignore[override]
        """Name of the reference that a benchmark may have for the protocol alone."""
        return self.protocol.name

    @property
    def constant(self) -> str:  # type: ignore[override]
        """What the best constant per image would score."""
        return f"{self.protocol.name}/abs_rel_constant"

    def scores_of(self, prediction: Tensor, target: Tensor, valid: Tensor, *more: Tensor) -> Tensor:
        """Return the metrics of an image in the order of ``DEPTH_METRICS``."""
        aligned = self.align(prediction, target, valid)
        return depth_scores(prediction[valid], target[valid], aligned, self.protocol.epsilon_m)
