"""Metrics of surface normals: summed in float64, exact over any number of ranks and batches."""

import math

import torch
from torch import Tensor

from geometry.angles import angle_between, angle_deg
from lightning_modules.metrics.base import GeometryMetric

ANGLE_LIMITS_DEG = (5.0, 7.5, 11.25, 22.5, 30.0)
_MEDIAN_BINS_PER_DEG = 1000
_WEISZFELD_STEPS = 10


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
