"""The focal length, and the shift of relative depth, that make depth and normals of one image agree: an estimate."""

from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.errors import InputError
from geometry.medians import median

_SAME_SURFACE_COSINE = 0.999
# Neighbours lie on one surface if their depths differ by no more than this many times what is usual.
_LARGEST_JUMP = 10.0
_FEWEST_PAIRS = 100
_REWEIGHTINGS = 50
# Beyond this condition number, focal length and shift cannot be told apart.
_WORST = 1e10


@dataclass(frozen=True)
class RecoveredCamera:
    """What depth and normals say of the camera.

    Attributes:
        focal_length_px: focal length in pixels; square pixels, the principal point at the centre.
        shift: what relative depth lacks to be proportional to depth, in its own unit; 0 if it was known.
        num_pairs: pairs of neighbouring pixels that it rests on.
    """

    focal_length_px: float
    shift: float
    num_pairs: int


def recover_camera(depth: Tensor, normals: Tensor, is_shift_known: bool = False) -> RecoveredCamera:
    """Return the focal length and shift for which neighbouring points lie on the plane that their normal says.

    Convention:
        Two neighbouring pixels of one surface, at depths ``d + shift`` up to scale, are the points P and Q; their
        normal n says that n . (P - Q) = 0. With w = 1 / focal length, that is linear in w and ``shift * w``, so both
        follow from all pairs at once, in the sense of least absolute errors (reweighted least squares), which wrong
        pixels hardly move. Where all surfaces face the camera, nothing can be said.

    Args:
        depth: (H,W) float, planar depth up to scale and shift, larger for what is farther.
        normals: (3,H,W) float, unit normals, x right, y up, z toward the viewer.
        is_shift_known: depth is known up to scale alone.

    Raises:
        InputError: the sizes differ, or no camera fits.

    Source:
        The aim is that of the shift and focal length of LeReS and MoGe, which take them from a point cloud network and
        from a point map; here the normals are a second prediction instead.
    """
    if normals.shape != (3, *depth.shape):
        raise InputError(f"depth is {tuple(depth.shape)}, but normals are {tuple(normals.shape)}.")
    height, width = depth.shape
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - width / 2).expand(height, width)
    y = (height / 2 - torch.arange(height, dtype=torch.float64) - 0.5)[:, None].expand(height, width)
    pairs = [_pairs(depth.double(), normals.double(), x, y, axis) for axis in (0, 1)]
    factors, right = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if is_shift_known:
        factors = factors[:, :1]
    unknowns = _least_absolute(factors, right) if len(right) >= _FEWEST_PAIRS else None
    inverse = float(unknowns[0]) if unknowns is not None else 0.0
    shift = float(unknowns[1]) / inverse if unknowns is not None and inverse > 0 and not is_shift_known else 0.0
    if not inverse > 0 or not float(depth.min()) + shift > 0:
        raise InputError("no camera makes depth and normals agree; give --intrinsics or --fov_deg.")
    return RecoveredCamera(1 / inverse, shift, len(right))


def _pairs(depth: Tensor, normals: Tensor, x: Tensor, y: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the factors (N,2) of w and shift * w, and the right sides (N,), of neighbours along an axis."""
    size = depth.shape[axis]

    def both(values: Tensor) -> tuple[Tensor, Tensor]:
        at = values.ndim - 2 + axis
        return values.narrow(at, 0, size - 1), values.narrow(at, 1, size - 1)

    (n, n_next), (d, d_next) = both(normals), both(depth)
    across = [n[0] * column + n[1] * row for column, row in zip(both(x), both(y), strict=True)]
    factors = torch.stack([d_next * across[1] - d * across[0], across[1] - across[0]], dim=-1)
    right = n[2] * (d_next - d)
    jump = (d_next - d).abs()
    usual = median(jump[jump > 0]).nan_to_num(nan=0.0)
    same = ((n * n_next).sum(dim=0) > _SAME_SURFACE_COSINE) & (jump <= _LARGEST_JUMP * usual)
    return factors[same], right[same]


def _least_absolute(factors: Tensor, right: Tensor) -> Tensor | None:
    """Return the unknowns with the smallest sum of absolute errors, or None if they are not determined.

    Equations are first brought to one length, so that a few with a large jump of depth do not decide.
    """
    columns = torch.cat([factors, right[:, None]], dim=1)
    units = columns.abs().mean(dim=0).clamp(min=1e-300)
    length = (columns / units).norm(dim=1)
    kept = length > 0
    factors, right = factors[kept] / length[kept, None], right[kept] / length[kept]
    weight, found = torch.ones_like(right), None
    for _ in range(_REWEIGHTINGS):
        weighted = factors * weight[:, None]
        matrix = weighted.T @ factors
        scale = matrix.diagonal().sqrt()
        if not bool((scale > 0).all()) or not float(torch.linalg.cond(matrix / scale / scale[:, None])) < _WORST:
            return None
        found = torch.linalg.solve(matrix, weighted.T @ right)
        error = (factors @ found - right).abs()
        weight = 1 / error.clamp(min=1e-12 + 1e-4 * float(error.mean()))
    return found
