"""Inverse depth, smoothed and differentiated without mixing two surfaces: what normals from depth are made of.

Convention (the whole file):
    Inverse depth is 1 / depth, in 1/m, (...,1,H,W). Over the image of a plane it is a linear function of the pixel,
    where depth is not: second differences of it vanish on every plane, however slanted, and are large where
    one surface ends. That makes them the measure of "the same surface" here.
    A tolerance is relative: 0.001 stands for 0.1 % of the inverse depth, which is also 0.1 % of the depth.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.masked import select

# Stands for "unknown" in sums: no pair that holds it agrees with anything, and zero times it is still zero.
_UNKNOWN = -1e30
_SMOOTHING_RADIUS_PX = 2
# Shares of the tolerance, one per pass: what the first pass has averaged is less noisy.
_SMOOTHING_PASSES = (1.0, 0.5)
# A few arrays of so many float32 fit the second cache of a processor.
_BAND_PIXELS = 1 << 17


class Slope(NamedTuple):
    """Slopes along one axis of the image.

    Attributes:
        inverse_depth: (...,1,H,W), change of inverse depth per pixel; 0 where it is not known.
        rays: (...,3,H,W), change of the viewing ray per pixel, taken over the very same neighbours.
        known: (...,1,H,W) bool, at least one neighbour along the axis is valid.
        bend: (...,1,H,W), second difference next to the neighbours used, relative to inverse depth: near 0 on a plane.
    """

    inverse_depth: Tensor
    rays: Tensor
    known: Tensor
    bend: Tensor


def smooth_inverse_depth(
    inverse_depth: Tensor, rays: Tensor, valid_mask: Tensor, tolerance: Tensor
) -> tuple[Tensor, Tensor]:
    """Average rounding errors out of inverse depth, on planes without any bias and never across an edge.

    A pixel is averaged with pairs of pixels that lie opposite each other, up to 2 px away, twice over. On a plane the
    mean of such a pair is the value in the middle, so a pair counts only where its mean agrees with it: fully
    at equality, not at all beyond ``tolerance``. Across a depth edge or a crease none does, along it they do.
    The rays are averaged with the same weights. For a pinhole that changes nothing; for a tilted lens, whose rays do
    not run evenly over the pixels, it keeps each plane a plane.

    Args:
        inverse_depth: (...,1,H,W) float, 1/m. Values outside the mask do not matter.
        rays: (...,3,H,W) float from ``pixel_rays``.
        valid_mask: (...,1,H,W) bool.
        tolerance: (...,1,H,W) float, relative, how far rounding alone may move the mean of a pair.

    Returns:
        ``(inverse_depth, rays)`` of the same shapes and dtype; unchanged outside the mask.
    """
    reach = (tolerance * inverse_depth).clamp(min=1e-30)
    ray_xy = rays[..., :2, :, :].expand(*inverse_depth.shape[:-3], 2, *inverse_depth.shape[-2:])
    smoothed = torch.cat([select(valid_mask, inverse_depth, _UNKNOWN), ray_xy], dim=-3)
    for share in _SMOOTHING_PASSES:
        smoothed = _average_pairs(smoothed, share * reach, valid_mask)
    inverse_depth = select(valid_mask, smoothed[..., :1, :, :], inverse_depth)
    return inverse_depth, torch.cat([smoothed[..., 1:, :, :], -torch.ones_like(inverse_depth)], dim=-3)


def _average_pairs(values: Tensor, reach: Tensor, valid_mask: Tensor) -> Tensor:
    """Average every channel with opposite pixels inside the mask; the first over ``reach`` decides which count."""
    padded, averages = F.pad(values, (_SMOOTHING_RADIUS_PX,) * 4, value=_UNKNOWN), torch.empty_like(values)
    for first, last in row_bands(*values.shape[-2:]):
        around = padded[..., first : last + 2 * _SMOOTHING_RADIUS_PX, :]
        average, band = averages[..., first:last, :], values[..., first:last, :]
        _average_band(around, 1 / reach[..., first:last, :], average)
        average.copy_(select(valid_mask[..., first:last, :], average, band))
    return averages


def _average_band(padded: Tensor, agreement: Tensor, averages: Tensor) -> None:
    """Write the averages of a band of rows, given with the pixels around it.

    Everything stands for its half or its double, which by powers of two changes no digit and saves three operations,
    and results go into memory that is there.
    """
    radius = _SMOOTHING_RADIUS_PX
    height, width = averages.shape[-2:]
    values = padded[..., radius : radius + height, radius : radius + width]
    doubled, half_agreement = 2 * values, agreement / 2
    total, half_weight = averages.zero_(), torch.full_like(agreement, 0.5)
    deviation, weight, ones = torch.empty_like(doubled), torch.empty_like(agreement), torch.ones_like(agreement)
    span = range(-radius, radius + 1)
    for row, column in ((row, column) for row in span for column in span if (row, column) > (0, 0)):
        one = padded[..., radius + row : radius + row + height, radius + column : radius + column + width]
        other = padded[..., radius - row : radius - row + height, radius - column : radius - column + width]
        torch.add(one, other, out=deviation).sub_(doubled)
        squared_residual = torch.mul(deviation[..., :1, :, :], half_agreement, out=weight).square_()
        torch.sub(ones, squared_residual, out=weight).clamp_(min=0).square_()
        total.addcmul_(weight, deviation)
        half_weight.add_(weight)
    total.div_(half_weight.mul_(2)).add_(values)


def row_bands(height: int, width: int) -> list[tuple[int, int]]:
    """Return first row and end of bands of an image that fit the cache of a processor: twice as fast as the whole.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    rows = max(1, round(_BAND_PIXELS / width))
    return [(first, min(first + rows, height)) for first in range(0, height, rows)]


def discontinuity_aware_slope(
    inverse_depth: Tensor, rays: Tensor, valid_mask: Tensor, noise: Tensor, dim: int
) -> Slope:
    """Return the slopes along one axis, taken on the side where the surface continues.

    The difference to the previous pixel is trusted where inverse depth is straight at that pixel, the difference to
    the next one where it is straight there; the weights are inverse to the squared second differences. On smooth
    ground both count, next to an edge only the one that stays on the surface.

    Args:
        inverse_depth: (...,1,H,W) float, 1/m.
        rays: (...,3,H,W) float from ``pixel_rays``.
        valid_mask: (...,1,H,W) bool; no difference is taken to a pixel outside it.
        noise: (...,1,H,W) float, larger than 0, relative size of second differences that still mean nothing.
        dim: -1 for the slope to the right, -2 for the slope downward.

    Returns:
        The slopes, all of ``inverse_depth``'s dtype.

    Source:
        Feng et al., "D2NT: A High-Performing Depth-to-Normal Translator", 2023, discontinuity-aware gradient filter.
        Deviations: inverse depth in place of depth (its second difference is 0 on slanted planes, too), relative to
        its size; weights by inverse squares in place of exponentials, which are more even on curved surfaces.
    """
    size = inverse_depth.shape[dim]
    differences = inverse_depth.diff(dim=dim)
    both_valid = valid_mask.narrow(dim, 0, size - 1) & valid_mask.narrow(dim, 1, size - 1)
    differences = _pad(select(both_valid, differences, 0.0), dim, 2)
    before_previous, previous, following, after_following = (differences.narrow(dim, k, size) for k in range(4))
    has_previous, has_following = (_pad(both_valid, dim, 1).narrow(dim, k, size) for k in range(2))

    scale = select(valid_mask, inverse_depth, 1.0)
    bend_previous = (previous - before_previous).abs() / scale
    bend_following = (after_following - following).abs() / scale
    trust_previous, trust_following = (bend_following + noise).square(), (bend_previous + noise).square()
    weight = trust_previous / (trust_previous + trust_following)
    weight = select(has_previous, select(has_following, weight, 1.0), 0.0)

    ray_differences = _pad(rays.diff(dim=dim), dim, 1)
    ray_previous, ray_following = (ray_differences.narrow(dim, k, size) for k in range(2))
    return Slope(
        inverse_depth=torch.lerp(following, previous, weight),
        rays=ray_following + weight * (ray_previous - ray_following),
        known=has_previous | has_following,
        bend=torch.lerp(bend_following, bend_previous, weight),
    )


def _pad(values: Tensor, dim: int, amount: int) -> Tensor:
    """Add zeros (or False) at both ends of one image axis."""
    return F.pad(values, (amount, amount) if dim == -1 else (0, 0, amount, amount))
