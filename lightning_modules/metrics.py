"""Metrics of depth and normals: summed in float64, exact over any number of ranks and batches."""

import math
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.alignment import align_scale_shift
from geometry.angles import angle_between, angle_deg
from geometry.batch import DatasetInfo, Target
from geometry.errors import InputError
from geometry.modalities import Depth, Modality
from geometry.parameterization import Parameterization
from lightning_modules.depth_scores import DEPTH_METRICS, depth_scores
from lightning_modules.metric_base import GeometryMetric

ANGLE_LIMITS_DEG = (5.0, 7.5, 11.25, 22.5, 30.0)
_MIN_DEPTH_M = 1e-6
_MEDIAN_BINS_PER_DEG = 1000
_WEISZFELD_STEPS = 10


class AffineInvariantDepth(GeometryMetric):
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
    sums: Tensor

    def __init__(
        self, near_plane_m: float = 0.0, far_plane_m: float = math.inf, max_fit_size_px: int | None = None
    ) -> None:
        super().__init__()
        if not near_plane_m <= far_plane_m or (max_fit_size_px is not None and max_fit_size_px < 1):
            raise InputError(
                "the metric needs near_plane_m <= far_plane_m and max_fit_size_px of at least 1, got "
                f"{near_plane_m}, {far_plane_m} and {max_fit_size_px}."
            )
        self.near_plane_m = max(near_plane_m, _MIN_DEPTH_M)
        self.far_plane_m = far_plane_m
        self.max_fit_size_px = max_fit_size_px
        self.parameterization = Parameterization()
        self.add_state("sums", torch.zeros(len(DEPTH_METRICS), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")

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

    def compute(self) -> dict[str, Tensor]:
        """Return each metric by name; NaN if no image had a valid pixel."""
        return dict(zip(DEPTH_METRICS, self.sums / self.num_images, strict=True))

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


class NormalsError(GeometryMetric):
    """Angular error of normals in degrees, over all pixels of a data set and as mean of per-image means.

    Convention:
        ``mean_angle_deg``, ``median_angle_deg``, ``rmse_angle_deg`` and ``share_under_*_deg`` (strictly under) pool
        the valid pixels of all images, as DSINE does; ``mean_angle_deg_per_image`` is the mean over images, as
        Marigold does. The median is read from bins of 0.001 degrees, so it is exact to their width. An image without
        valid pixels is not counted.
        ``mean_angle_constant_deg`` is what the best constant normal per image would score as ``mean_angle_deg``.
    """

    headline, constant = "mean_angle_deg", "mean_angle_constant_deg"
    sums: Tensor
    under_limits: Tensor
    histogram: Tensor
    per_image_sum: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(3, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("under_limits", torch.zeros(len(ANGLE_LIMITS_DEG), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("histogram", torch.zeros(180 * _MEDIAN_BINS_PER_DEG, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("per_image_sum", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> None:
        """Add images.

        Args:
            prediction: (B,3,H,W) float, normals of any length.
            target: (B,3,H,W) float, unit normals.
            valid_mask: (B,1,H,W) bool.
        """
        target = torch.where(valid_mask, target.double(), 0.0)
        angle = angle_deg(torch.where(valid_mask, prediction.double(), 0.0), target)
        constant = angle_deg(best_constant_normal(target, valid_mask).expand_as(target), target)
        known = angle[valid_mask]
        self.sums += torch.stack([known.sum(), known.square().sum(), constant[valid_mask].sum()])
        limits = torch.tensor(ANGLE_LIMITS_DEG, device=known.device, dtype=known.dtype)
        self.under_limits += (known[:, None] < limits).sum(dim=0)
        bins = (known * _MEDIAN_BINS_PER_DEG).nan_to_num(nan=180.0).long().clamp(0, len(self.histogram) - 1)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))
        count = valid_mask.sum(dim=(1, 2, 3))
        self.per_image_sum += (torch.where(valid_mask, angle, 0.0).sum(dim=(1, 2, 3)) / count.clamp(min=1)).sum()
        self.num_images += (count > 0).sum()

    def compute(self) -> dict[str, Tensor]:
        """Return each metric by name; NaN if no image had a valid pixel."""
        num_pixels = self.histogram.sum()
        total, total_square, total_constant = self.sums
        shares = {
            f"share_under_{limit:g}_deg".replace(".", "_"): count / num_pixels
            for limit, count in zip(ANGLE_LIMITS_DEG, self.under_limits.double(), strict=True)
        }
        return {
            "mean_angle_deg": total / num_pixels,
            "median_angle_deg": self._median(num_pixels),
            "rmse_angle_deg": (total_square / num_pixels).sqrt(),
            **shares,
            "mean_angle_deg_per_image": self.per_image_sum / self.num_images,
            "mean_angle_constant_deg": total_constant / num_pixels,
        }

    def _median(self, num_pixels: Tensor) -> Tensor:
        """Return the middle value, or the mean of the two in the middle, each interpolated inside its bin."""
        if num_pixels == 0:
            return torch.full_like(self.per_image_sum, torch.nan)
        up_to = self.histogram.cumsum(dim=0)
        middle = torch.stack([(num_pixels - 1) // 2, num_pixels // 2])
        bins = torch.searchsorted(up_to, middle, right=True)
        inside = self.histogram[bins]
        position = (middle - (up_to[bins] - inside) + 0.5) / inside.double()
        return ((bins + position) / _MEDIAN_BINS_PER_DEG).mean()


def best_constant_normal(normals: Tensor, valid_mask: Tensor) -> Tensor:
    """Return the unit vector per image with the smallest mean angle to its normals: their spherical median.

    Convention:
        A few Weiszfeld steps in the tangent plane, from the normalised mean; the best of all steps is returned.

    Args:
        normals: (B,3,H,W) float64, unit vectors where valid, zero elsewhere.
        valid_mask: (B,1,H,W) bool.

    Returns:
        (B,3,1,1); (0, 0, 1) where nothing is valid.
    """
    total = normals.sum(dim=(2, 3), keepdim=True)
    length = total.norm(dim=1, keepdim=True)
    ahead = total.new_tensor([0.0, 0.0, 1.0])[:, None, None]
    centre = best = torch.where(length > 0, total / length.clamp(min=1e-12), ahead)
    lowest = torch.full_like(length, torch.inf)
    for _ in range(_WEISZFELD_STEPS + 1):
        angle = angle_between(centre.expand_as(normals), normals)
        cost = torch.where(valid_mask, angle, 0.0).sum(dim=(2, 3), keepdim=True)
        best = torch.where(cost < lowest, centre, best)
        lowest = torch.minimum(cost, lowest)
        weight = torch.where(valid_mask, 1 / angle.clamp(min=1e-6), 0.0)
        # Each normal's direction in the plane that touches the sphere at the centre, as long as its angle.
        tangent = normals - (normals * centre).sum(dim=1, keepdim=True) * centre
        tangent = tangent / tangent.norm(dim=1, keepdim=True).clamp(min=1e-12) * angle
        step = (weight * tangent).sum(dim=(2, 3), keepdim=True)
        step = step / weight.sum(dim=(2, 3), keepdim=True).clamp(min=1e-12)
        size = step.norm(dim=1, keepdim=True)
        centre = size.cos() * centre + torch.sinc(size / math.pi) * step
        centre = centre / centre.norm(dim=1, keepdim=True)
    return best
