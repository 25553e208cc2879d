"""Inverse depth, smoothed and differentiated without mixing two surfaces: what normals from depth are made of.

Convention (the whole file):
    Inverse depth is 1 / depth, in 1/m, (...,1,N) as ``geometry.padded_images`` lays images out. Over the image of a
    plane it is a linear function of the pixel, where depth is not: second differences of it vanish on every plane,
    however slanted, and are large where one surface ends. That makes them the measure of "the same surface" here.
    A tolerance is relative: 0.001 stands for 0.1 % of the inverse depth, which is also 0.1 % of the depth.
"""

from typing import NamedTuple

import numpy as np
import torch

from geometry.padded_images import Array, Padding, keep, select, shifted

# Stands for "unknown" in sums: no pair that holds it agrees with anything, and zero times it is still zero.
_UNKNOWN = -1e30
_SMOOTHING_RADIUS_PX = 2
_SPAN = range(-_SMOOTHING_RADIUS_PX, _SMOOTHING_RADIUS_PX + 1)
# Pairs of pixels that lie opposite each other: how far below and how far to the right of the middle one of them is.
_PAIRS = [(down, right) for down in _SPAN for right in _SPAN if (down, right) > (0, 0)]
# Shares of the tolerance, one per pass: what the first pass has averaged is less noisy.
_SMOOTHING_PASSES = (1.0, 0.5)


class Slope(NamedTuple):
    """Slopes along one axis of the image, at n pixels.

    Attributes:
        inverse_depth: (...,1,n), change of inverse depth per pixel; 0 where it is not known.
        rays: (...,2,n), change of x and y of the viewing ray per pixel, taken over the very same neighbours.
        known: (...,1,n), bits of the mask where at least one neighbour along the axis is valid.
        bend: (...,1,n), second difference next to the neighbours used, relative to inverse depth: near 0 on a plane.
    """

    inverse_depth: Array
    rays: Array
    known: Array
    bend: Array


def smooth_inverse_depth(
    inverse_depth: Array, rays: Array, kept: Array, tolerance: Array, padding: Padding
) -> tuple[Array, Array]:
    """Average rounding errors out of inverse depth, on planes without any bias and never across an edge.

    A pixel is averaged with pairs of pixels that lie opposite each other, up to 2 px away, twice over. On a plane the
    mean of such a pair is the value in the middle, so a pair counts only where its mean agrees with it: fully
    at equality, not at all beyond ``tolerance``. Across a depth edge or a crease none does, along it they do.
    The rays are averaged with the same weights. For a pinhole that changes nothing; for a tilted lens, whose rays do
    not run evenly over the pixels, it keeps each plane a plane.

    Args:
        inverse_depth: (...,1,N) float, 1/m. Values outside the mask do not matter.
        rays: (...,2,N) or (2,N) float, x and y of those from ``pixel_rays``; finite at the border, too.
        kept: (...,1,N), the bits of the mask of valid pixels; none is valid at the border.
        tolerance: (...,1,N) float, relative, how far rounding alone may move the mean of a pair.
        padding: how the images are laid out, with a border of at least 3 pixels.

    Returns:
        ``(inverse_depth, rays)``, (...,1,N) and (...,2,N) of the same dtype; unchanged outside the mask.
    """
    reach = np.maximum(tolerance * inverse_depth, 1e-30)
    values = np.empty((*inverse_depth.shape[:-2], 3, inverse_depth.shape[-1]), inverse_depth.dtype)
    values[..., :1, :], values[..., 1:, :] = select(kept, inverse_depth, _UNKNOWN), rays
    even_rays = _deviations_of_even_rays(rays, padding)
    border = padding.border * padding.row
    for share in _SMOOTHING_PASSES:
        averages = np.empty_like(values)
        averages[..., :border], averages[..., -border:] = values[..., :border], values[..., -border:]
        for first, last, band in padding.bands():
            beside = even_rays and [(to_right, to_bottom[first:last]) for to_right, to_bottom in even_rays]
            change = _mean_deviation(values, 1 / (share * reach[..., band]), band, padding.row, beside)
            np.add(values[..., band], keep(change, kept[..., band]), out=averages[..., band])
        values, even_rays = averages, None  # averaged rays differ from row to row
    return select(kept, values[..., :1, :], inverse_depth), values[..., 1:, :]


def _deviations_of_even_rays(rays: Array, padding: Padding) -> list[tuple[Array, Array]] | None:
    """Return by how much opposite rays deviate from the one between them, if all rows of x and all columns of y agree.

    Args:
        rays: (...,2,N), x and y.
        padding: how they are laid out.

    Returns:
        For every pair twice the deviations of x (a row of the padded image) and of y (H,1), which are rounding errors;
        None for several cameras and for one that is tilted.
    """
    if rays.ndim > 2:
        return None
    inside = slice(padding.border, -padding.border)
    x, y = padding.crop(rays)[:, inside]
    if (x != x[:1]).any() or (y != y[:, :1]).any():
        return None
    across, down = (np.pad(line, padding.border, mode="edge") for line in (x[0], y[:, 0]))

    def deviation(line: Array, places: int) -> Array:
        return np.roll(line, -places) + np.roll(line, places) - 2 * line

    return [(deviation(across, to_right), deviation(down, to_bottom)[inside, None]) for to_bottom, to_right in _PAIRS]


def _mean_deviation(
    values: Array, agreement: Array, band: slice, row: int, even_rays: list[tuple[Array, Array]] | None
) -> Array:
    """Return by how much the average with opposite pixels differs from each pixel of a band, for every channel.

    The deviation of a pair is taken twice and the weights half, which by powers of two changes no digit and saves
    operations. PyTorch adds products, for it rounds once.

    Args:
        values: (...,3,N): inverse depth, which decides what pairs count, and x and y of the rays.
        agreement: (...,1,n), 1 over the deviation at which a pair no longer counts.
        band: the n places, whole rows.
        row: places from a pixel to the one below it.
        even_rays: twice the deviations of x (row) and y (rows,1) for every pair, where they are known.

    Returns:
        (...,3,n).
    """
    total = np.zeros((*values.shape[:-1], agreement.shape[-1]), values.dtype)
    values = values if even_rays is None else values[..., :1, :]
    doubled, half_agreement = 2 * values[..., band], agreement / 2
    ones, zeros, half_weight = np.ones_like(agreement), np.zeros_like(agreement), np.full_like(agreement, 0.5)
    deviation, weight = np.empty_like(doubled), np.empty_like(agreement)
    of_inverse_depth = deviation[..., :1, :]
    sums, factors = torch.from_numpy(total), (torch.from_numpy(weight), torch.from_numpy(deviation))
    add = sums[..., : values.shape[-2], :].addcmul_
    rows = (-1, row)
    add_x, add_y = (sums[..., k : k + 1, :].unflatten(-1, rows).addcmul_ for k in (1, 2))
    weight_image = factors[0].unflatten(-1, rows)
    for number, (down, right) in enumerate(_PAIRS):
        places = down * row + right
        np.add(shifted(values, band, places), shifted(values, band, -places), out=deviation)
        np.subtract(deviation, doubled, out=deviation)
        np.multiply(of_inverse_depth, half_agreement, out=weight)
        np.multiply(weight, weight, out=weight)
        np.maximum(np.subtract(ones, weight, out=weight), zeros, out=weight)
        np.multiply(weight, weight, out=weight)
        np.add(half_weight, weight, out=half_weight)
        add(*factors)
        if even_rays:
            x, y = even_rays[number]
            add_x(weight_image, torch.from_numpy(x))
            add_y(weight_image, torch.from_numpy(y))
    return np.divide(total, np.add(half_weight, half_weight, out=half_weight), out=total)


def discontinuity_aware_slope(
    inverse_depth: Array, rays: Array, kept: Array, noise: Array, band: slice, step: int
) -> Slope:
    """Return the slopes along one axis, taken on the side where the surface continues.

    The difference to the previous pixel is trusted where inverse depth is straight at that pixel, the difference to
    the next one where it is straight there; the weights are inverse to the squared second differences. On smooth
    ground both count, next to an edge only the one that stays on the surface.

    Args:
        inverse_depth: (...,1,N) float, 1/m, and 1 where it is not valid.
        rays: (...,2,N) float, x and y of those from ``pixel_rays``; just behind the border those just before it.
        kept: (...,1,N), the bits of the mask of valid pixels; none is valid at the border.
        noise: (...,1,n) float, larger than 0, relative size of second differences that still mean nothing.
        band: the n places to find slopes at, at least 2 steps from the ends.
        step: places from a pixel to the next along the axis: 1 for the slope to the right, a row for that downward.

    Returns:
        The slopes, all of ``inverse_depth``'s dtype.

    Source:
        Feng et al., "D2NT: A High-Performing Depth-to-Normal Translator", 2023, discontinuity-aware gradient filter.
        Deviations: inverse depth in place of depth (its second difference is 0 on slanted planes, too), relative to
        its size; weights by inverse squares in place of exponentials, which are more even on curved surfaces.
    """
    # Differences from one pixel to the next, from 2 pixels before the band to 1 behind it; 0 unless both are valid.
    around = slice(band.start - 2 * step, band.stop + step)
    both_valid = shifted(kept, around, step) & kept[..., around]
    differences = keep(shifted(inverse_depth, around, step) - inverse_depth[..., around], both_valid)
    previous, following = slice(step, -2 * step), slice(2 * step, -step)
    has_previous, has_following = both_valid[..., previous], both_valid[..., following]

    bends = differences[..., step:] - differences[..., :-step]
    np.abs(bends, out=bends)
    scale = inverse_depth[..., band]
    bend_previous, bend_following = bends[..., : -2 * step] / scale, bends[..., 2 * step :] / scale
    trust_previous, trust_following = np.square(bend_following + noise), np.square(bend_previous + noise)
    trust_following += trust_previous
    trust_previous /= trust_following
    weight = keep(select(has_following, trust_previous, 1.0), has_previous)

    beside = slice(band.start - step, band.stop)
    ray_differences = shifted(rays, beside, step) - rays[..., beside]
    ray_following = ray_differences[..., step:]
    ray_slope = ray_differences[..., :-step] - ray_following
    ray_slope *= weight
    ray_slope += ray_following
    return Slope(
        inverse_depth=_lerp(differences[..., following], differences[..., previous], weight),
        rays=ray_slope,
        known=has_previous | has_following,
        bend=_lerp(bend_following, bend_previous, weight),
    )


def _lerp(start: Array, end: Array, weight: Array) -> Array:
    """Return numbers between start and end; PyTorch's are never beyond either."""
    return torch.lerp(*(torch.from_numpy(values) for values in (start, end, weight))).numpy()
