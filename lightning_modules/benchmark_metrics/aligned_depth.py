"""Depth metrics by the rules of one protocol."""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.batch import DatasetInfo
from geometry.parameterization import Parameterization
from lightning_modules.benchmark_metrics.protocols import Aligned, protocol_named
from lightning_modules.depth_scores import DEPTH_METRICS, depth_scores
from lightning_modules.metric_base import GeometryMetric


class AlignedMetric(GeometryMetric):
    """A metric of depth that a protocol has brought to metres.

    Args:
        protocol: Name of the protocol: least_squares, least_squares_disparity, ransac_log, median or metric.
        space: The space in which predictions are known up to scale and shift; by default depth itself.
        limits: Smallest and largest depth that can be true. Datasets bring their own.
        max_fit_size_px: Fit on images downsampled to this longest side. Datasets bring their own.
    """

    knows_modality = True

    def __init__(
        self,
        protocol: str = "ransac_log",
        space: Parameterization | None = None,
        limits: tuple[float, float] = (0.0, math.inf),
        max_fit_size_px: int | None = None,
    ) -> None:
        super().__init__()
        self.protocol = protocol_named(protocol)
        self.reference = protocol
        self.space, self.limits, self.max_fit_size_px = space or Parameterization(), limits, max_fit_size_px

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


class ProtocolDepth(AlignedMetric):
    """Depth metrics after the alignment of a protocol, ``<protocol>/abs_rel`` and so on; means of per-image metrics.

    An image without valid pixels is not counted. See ``lightning_modules.metrics.AffineInvariantDepth`` for the names.

    Args:
        protocol: Name of the protocol: least_squares, least_squares_disparity, ransac_log, median or metric.
        space: The space in which predictions are known up to scale and shift; by default depth itself.
        limits: Smallest and largest depth that can be true. Datasets bring their own.
        max_fit_size_px: Fit on images downsampled to this longest side. Datasets bring their own.
    """

    sums: Tensor

    def __init__(
        self,
        protocol: str = "ransac_log",
        space: Parameterization | None = None,
        limits: tuple[float, float] = (0.0, math.inf),
        max_fit_size_px: int | None = None,
    ) -> None:
        super().__init__(protocol, space, limits, max_fit_size_px)
        self.headline, self.constant = f"{protocol}/abs_rel", f"{protocol}/abs_rel_constant"
        self.add_state("sums", torch.zeros(len(DEPTH_METRICS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")

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

    def compute(self) -> dict[str, Tensor]:
        """Return each metric by name; NaN if no image had a valid pixel."""
        names = (f"{self.protocol.name}/{name}" for name in DEPTH_METRICS)
        return dict(zip(names, self.sums / self.num_images, strict=True))
