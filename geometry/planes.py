"""Normals of the surfaces that a depth image shows: of the plane through each pixel, sharp at depth edges.

Convention (the whole file):
    Images are laid out as ``geometry.padded_images`` does, (...,C,N) or n places of it. A plane is the vector a for
    which a . point = 1 at its points; a . ray is then inverse depth, in 1/m. Rays have z = -1.
"""

import numpy as np
import torch

from geometry.inverse_depth import Slope, discontinuity_aware_slope, smooth_inverse_depth
from geometry.padded_images import Array, Padding, bits_of, keep, select, shifted

# Second differences of inverse depth below this share of it are ignored even where depth is exact.
_SMALLEST_BEND = 2.0**-13
# Slopes look two pixels far, and planes are taken over from the next one.
_PIXELS_AROUND = 3


def surface_normals(
    depth: Array, rays: Array, valid_mask: Array, relative_error: float, error_m: float
) -> tuple[Array, Array]:
    """Return what ``geometry.normals.normals_from_depth`` does, of and as NumPy's arrays.

    Args:
        depth: (...,1,H,W) float32 or float64.
        rays: (...,3,H,W) or (3,H,W), of the same dtype.
        valid_mask: (...,1,H,W) bool.
        relative_error: largest rounding error of the stored depth relative to depth.
        error_m: largest rounding error in metres.

    Returns:
        ``(normals, mask)``: (...,3,H,W) and (...,1,H,W) bool.
    """
    padding = Padding(depth.shape[-2], depth.shape[-1], _PIXELS_AROUND)
    with np.errstate(all="ignore"):
        kept = padding.pad(bits_of(valid_mask & (depth > 0) & (depth < np.inf), depth.dtype), 0)
        inverse_depth = select(kept, 1 / padding.pad(depth, 1.0), 1.0)
        ray_xy = padding.pad(rays[..., :2, :, :], 0.0)
        error = relative_error + error_m * inverse_depth
        if relative_error > 0 or error_m > 0:
            inverse_depth, ray_xy = smooth_inverse_depth(inverse_depth, ray_xy, kept, 2 * error, padding)
        padding.repeat_edges(ray_xy)
        return _normals_of_planes(inverse_depth, ray_xy, kept, error / 2 + _SMALLEST_BEND, padding)


def _normals_of_planes(
    inverse_depth: Array, rays: Array, kept: Array, noise: Array, padding: Padding
) -> tuple[Array, Array]:
    """Return normals (...,3,H,W) and their mask from smoothed inverse depth, band by band."""
    size = (padding.height, padding.width)
    normals = np.empty((*inverse_depth.shape[:-2], 3, *size), inverse_depth.dtype)
    mask = np.empty((*inverse_depth.shape[:-1], *size), bool)
    for first, last, band in padding.bands():
        planes, known = _planes_of_band(inverse_depth, rays, kept, noise, band, padding.row)
        normals[..., first:last, :] = padding.crop(_facing_unit_vectors(planes, known))
        mask[..., first:last, :] = padding.crop(known)
    return normals, mask


def _planes_of_band(
    inverse_depth: Array, rays: Array, kept: Array, noise: Array, band: slice, row: int
) -> tuple[Array, Array]:
    """Return the planes of a band of rows, and the bits of the mask where they are known."""
    around = slice(band.start - row, band.stop + row)
    images = (inverse_depth, rays, kept, noise[..., around], around)
    across, down = discontinuity_aware_slope(*images, 1), discontinuity_aware_slope(*images, row)
    known = across.known & down.known & kept[..., around]
    planes = _planes_from_slopes(inverse_depth[..., around], rays[..., around], across, down)
    bend = select(known, across.bend + down.bend, np.inf)
    chosen = _take_over_straighter_neighbours(planes, bend, inverse_depth[..., band], rays[..., band], row)
    return chosen, known[..., row:-row]


def _planes_from_slopes(inverse_depth: Array, rays: Array, across: Slope, down: Slope) -> Array:
    """Return per pixel the vector a (...,3,n) with a . ray = inverse depth on the plane through the pixel.

    The plane a . point = 1 has normal a, and a . ray > 0 says that a points away from the camera. The two slopes
    (a . ray slope = inverse depth slope, and rays have constant z) fix a_x and a_y, the pixel itself a_z.
    """
    (x_across, y_across), (x_down, y_down) = _channels(across.rays), _channels(down.rays)
    planes = np.empty((*rays.shape[:-2], 3, rays.shape[-1]), rays.dtype)
    (a_x, a_y, a_z), (x, y) = _channels(planes), _channels(rays)
    determinant = x_across * y_down
    determinant -= x_down * y_across
    np.subtract(across.inverse_depth * y_down, down.inverse_depth * y_across, out=a_x)
    np.subtract(down.inverse_depth * x_across, across.inverse_depth * x_down, out=a_y)
    a_x /= determinant
    a_y /= determinant
    np.multiply(a_x, x, out=a_z)
    a_z += a_y * y
    a_z -= inverse_depth
    return planes


def _channels(values: Array) -> list[Array]:
    """Return (...,C,n) as C views (...,1,n)."""
    return [values[..., channel : channel + 1, :] for channel in range(values.shape[-2])]


def _take_over_straighter_neighbours(planes: Array, bend: Array, inverse_depth: Array, rays: Array, row: int) -> Array:
    """Give each pixel the plane of a 4-neighbour that is straighter by more than twice what it misses its depth by.

    Args:
        planes: (...,3,n + 2 rows).
        bend: (...,1,n + 2 rows); infinite where there is no plane.
        inverse_depth: (...,1,n) of the pixels that are asked about.
        rays: (...,2,n), x and y; z is -1.
        row: places from a pixel to the one below it.

    Returns:
        (...,3,n).
    """
    x, y = _channels(rays)
    inside = slice(row, planes.shape[-1] - row)
    chosen, least = planes[..., inside], bend[..., inside]
    for places in (-1, 1, -row, row):
        neighbour = shifted(planes, inside, places)
        a_x, a_y, a_z = _channels(neighbour)
        cost = a_x * x
        cost += a_y * y
        cost -= a_z
        cost /= inverse_depth
        cost -= 1
        np.abs(cost, out=cost)
        cost *= 2
        cost += shifted(bend, inside, places)
        chosen = select(bits_of(cost < least, cost.dtype), neighbour, chosen)
        least = np.fmin(cost, least)
    return chosen


def _facing_unit_vectors(planes: Array, kept: Array) -> Array:
    """Return planes (...,3,n) as unit vectors that face the camera, 0 outside the mask; overwrites them."""
    normals = keep(np.negative(planes, out=planes), kept)
    squares = _channels(normals * normals)
    squared_length = squares[0] + squares[1]
    squared_length += squares[2]
    # PyTorch's root, for NumPy's last digit is another one.
    normals /= torch.from_numpy(np.maximum(squared_length, np.finfo(normals.dtype).tiny)).sqrt_().numpy()
    return normals
