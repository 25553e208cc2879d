"""Metrics of depth: summed in float64, exact over any number of ranks and batches."""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.alignment import align_scale_shift
from geometry.batch import DatasetInfo, Target
from geometry.errors import InputError
from geometry.modalities import Depth, Modality
from geometry.parameterization import Parameterization
from lightning_modules.metrics.base import MeanScores
from lightning_modules.metrics.depth_scores import DEPTH_METRICS, depth_scores

_MIN_DEPTH_M = 1e-6


class AffineInvariantDepth(MeanScores):
    """Depth metrics after the best scale and shift per image; the mean of per-image metrics.

    Convention:
        Per image: fit scale and shift by least squares over the valid pixels, clip the result to the valid range
        and to at least 1e-6 m, then compare. An image without valid pixels is not counted. Lengths in metres;
        ``delta1`` to ``delta3`` are shares strictly under 1.25, 1.25^2 and 1.25^3; ``silog`` is times 100.
        ``abs_rel_constant`` is what the best constant per image would score as ``abs_rel``.

        A prediction that is no linear depth but g(depth) up to scale and shift (see ``geometry.parameterization``) is
        fitted to g of the truth in the space of g, and g is undone: as many fitted numbers, in the space where they
        mean something, as the authors of such networks do. Everything after the fit is the same.

    Args:
        near_plane_m: Smallest depth that can be true. Data sets bring their own.
        far_plane_m: Largest depth that can be true. Data sets bring their own.
        max_fit_size_px: Fit scale and shift on images downsampled to this longest side; None takes all pixels. Data
            sets bring their own.

    Source:
        The evaluation protocol of Ke et al. (Marigold).
    """

    headline, constant = "abs_rel", "abs_rel_constant"
    knows_modality = True

    def __init__(
        self, near_plane_m: float = 0.0, far_plane_m: float = math.inf, max_fit_size_px: int | None = None
    ) -> None:
        super().__init__(DEPTH_METRICS)
        if not near_plane_m <= far_plane_m or (max_fit_size_px is not None and max_fit_size_px < 1):
            raise InputError(
                "the metric needs near_plane_m <= far_plane_m and max_fit_size_px of at least 1, got "
                f"{near_plane_m}, {far_plane_m} and {max_fit_size_px}."
            )
        self.near_plane_m = max(near_plane_m, _MIN_DEPTH_M)
        self.far_plane_m = far_plane_m
        self.max_fit_size_px = max_fit_size_px
        self.parameterization = Parameterization()

    def for_dataset(self, dataset: DatasetInfo) -> Self:
        """Return a new metric with the depth range and the size for fitting of a data set."""
        return type(self)(*dataset.range_of("depth"), dataset.max_fit_size_px)

    def for_modality(self, modality: Modality) -> Self:
        """Return the metric with the parameterisation of depth that a network predicts."""
        if not isinstance(modality, Depth):
            raise InputError(f"{type(self).__name__} measures depth, but the task predicts {modality.title}.")
        self.parameterization = modality.parameterization
        return self

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> None:
        """Add images.

        Args:
            prediction: (B,1,H,W) float, depth up to scale and shift.
            target: (B,1,H,W) float, depth in metres, positive where valid.
            valid_mask: (B,1,H,W) bool.
        """
        counted = valid_mask.flatten(1).any(dim=1)
        values = self.per_image(prediction, target, valid_mask)
        self.sums += torch.where(counted[:, None], values, 0.0).sum(dim=0)
        self.num_images += counted.sum()

    def per_image(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the metrics of each image, (B, number of metrics) float64, in the order of ``DEPTH_METRICS``."""
        scale, shift = self._fit(prediction, target, valid_mask)
        return torch.stack(
            [
                self._scores(predicted[valid], depth[valid], *fit)
                for predicted, depth, valid, *fit in zip(prediction, target, valid_mask, scale, shift, strict=True)
            ]
        )

    def _fit(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift, each (B,) float64, found on images of at most ``max_fit_size_px``."""
        shrink = (self.max_fit_size_px or math.inf) / max(prediction.shape[-2:])
        if shrink < 1:
            prediction, target, valid = (
                F.interpolate(t.float(), scale_factor=shrink, mode="nearest") for t in (prediction, target, valid_mask)
            )
            valid_mask = valid.bool()
        expected = self.parameterization.of_target(Target(target.double(), valid_mask))
        return align_scale_shift(prediction.double(), *expected)

    def _scores(self, prediction: Tensor, target: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Return the metrics of one image from its valid pixels (N,)."""

        def align(some: Tensor) -> Tensor:
            fitted = self.parameterization.undo(scale * some.double() + shift)
            return fitted.clamp(self.near_plane_m, self.far_plane_m)

        return depth_scores(prediction, target, align)
