"""Depth metrics by the rules of one protocol."""

import math
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.batch import DatasetInfo
from geometry.parameterization import Parameterization
from lightning_modules.metrics.base import GeometryMetric
from lightning_modules.metrics.benchmarks.protocols import Aligned, protocol_named
from lightning_modules.metrics.depth_scores import DEPTH_METRICS, depth_scores


class AlignedMetric(GeometryMetric):
    """A metric of depth that a protocol has brought to metres; the mean of its scores over what is counted.

    A subclass names its scores, adds to ``sums`` and counts.

    Attributes:
        scores: names of the summed scores, in their order, without the protocol.
        headline_score: name of the score that sums up; empty is the first one.
        counted: name of the state that the sums are divided by.
        default_protocol: name of the protocol where none is given.

    Args:
        protocol: Name of the protocol: least_squares, least_squares_disparity, ransac_log, median or metric; None is
            the metric's own default.
        space: The space in which predictions are known up to scale and shift; by default depth itself.
        limits: Smallest and largest depth that can be true. Datasets bring their own.
        max_fit_size_px: Fit on images downsampled to this longest side. Datasets bring their own.
    """

    knows_modality = True
    scores: ClassVar[tuple[str, ...]]
    headline_score: ClassVar[str] = ""
    counted: ClassVar[str] = "num_images"
    default_protocol: ClassVar[str] = "ransac_log"
    sums: Tensor

    def __init__(
        self,
        protocol: str | None = None,
        space: Parameterization | None = None,
        limits: tuple[float, float] = (0.0, math.inf),
        max_fit_size_px: int | None = None,
    ) -> None:
        super().__init__()
        self.protocol = protocol_named(self.default_protocol if protocol is None else protocol)
        self.space, self.limits, self.max_fit_size_px = space or Parameterization(), limits, max_fit_size_px
        self.headline = f"{self.protocol.name}/{self.headline_score or self.scores[0]}"
        self.add_state("sums", torch.zeros(len(self.scores), dtype=torch.float64), dist_reduce_fx="sum")
        for count in dict.fromkeys(("num_images", self.counted)):  # in one order on all ranks
            self.add_state(count, torch.tensor(0), dist_reduce_fx="sum")

    def for_dataset(self, dataset: DatasetInfo) -> Self:
        """Return a new metric with the depth range and the size for fitting of a dataset."""
        return type(self)(self.protocol.name, self.space, dataset.range_of("depth"), dataset.max_fit_size_px)

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

    def compute(self) -> dict[str, Tensor]:
        """Return each score by name; NaN if nothing was counted."""
        names = (f"{self.protocol.name}/{name}" for name in self.scores)
        return dict(zip(names, self.sums / getattr(self, self.counted), strict=True))


class ProtocolDepth(AlignedMetric):
    """Depth metrics after the alignment of a protocol, ``<protocol>/abs_rel`` and so on; means of per-image metrics.

    An image without valid pixels is not counted. See ``lightning_modules.metrics.AffineInvariantDepth`` for the names.

    Args:
        protocol: Name of the protocol: see ``AlignedMetric``.
        space: The space in which predictions are known up to scale and shift; by default depth itself.
        limits: Smallest and largest depth that can be true. Datasets bring their own.
        max_fit_size_px: Fit on images downsampled to this longest side. Datasets bring their own.
    """

    scores = DEPTH_METRICS

    def __init__(
        self,
        protocol: str | None = None,
        space: Parameterization | None = None,
        limits: tuple[float, float] = (0.0, math.inf),
        max_fit_size_px: int | None = None,
    ) -> None:
        super().__init__(protocol, space, limits, max_fit_size_px)
        self.reference, self.constant = self.protocol.name, f"{self.protocol.name}/abs_rel_constant"

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> None:
        """Add images.

        Args:
            prediction: (B,1,H,W) float.
            target: (B,1,H,W) float, depth in metres, positive where valid.
            valid_mask: (B,1,H,W) bool.
        """
        for image, depth, valid in zip(prediction, target, valid_mask, strict=True):
            if valid.any():
                aligned = self.align(image, depth, valid)
                self.sums += depth_scores(image[valid], depth[valid], aligned, self.protocol.epsilon_m)
                self.num_images += 1
