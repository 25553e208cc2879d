"""Surface normals: from depth, between coordinate frames, after resizing and mirroring.

Convention (the whole file):
    Our camera frame, also called "opengl": x right, y up, z toward the viewer. Normals are unit vectors that
    face the camera; a wall seen head-on is (0, 0, 1), a floor (0, 1, 0), a wall on the left (1, 0, 0).
    Where a normal is unknown it is (0, 0, 0).
"""

from typing import Literal

import torch
from torch import Tensor

from geometry.errors import InputError

Frame = Literal["opengl", "opencv", "dsine"]

# Signs of (x, y, z) that turn a normal in our frame into one in the named frame. They are their own inverse.
_SIGNS_FROM_OPENGL: dict[str, tuple[float, float, float]] = {
    "opengl": (1.0, 1.0, 1.0),
    "opencv": (1.0, -1.0, -1.0),
    "dsine": (-1.0, 1.0, 1.0),
}


def normals_from_depth(depth: Tensor, rays: Tensor, valid_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return normals (...,3,H,W) and mask (...,1,H,W) from planar depth, without blurring depth edges."""
    return normals_from_depth_finite_differences(depth, rays, valid_mask)


def normals_from_depth_finite_differences(depth: Tensor, rays: Tensor, valid_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return normals (...,3,H,W) and mask (...,1,H,W) from central differences of planar depth: the plain baseline."""
    points = torch.where(valid_mask, depth, torch.nan) * rays
    along_u = torch.full_like(points, torch.nan)
    along_v = torch.full_like(points, torch.nan)
    along_u[..., :, 1:-1] = points[..., :, 2:] - points[..., :, :-2]
    along_v[..., 1:-1, :] = points[..., :-2, :] - points[..., 2:, :]
    normals = torch.linalg.cross(along_u, along_v, dim=-3)
    mask = valid_mask & normals.isfinite().all(dim=-3, keepdim=True)
    return renormalize(face_camera(torch.where(mask, normals, 0.0), rays), mask), mask


def renormalize(normals: Tensor, mask: Tensor) -> Tensor:
    """Return unit vectors inside the mask and zeros outside, for instance after resizing.

    Args:
        normals: (...,3,H,W) float, any length.
        mask: (...,1,H,W) bool, where the normals are known.

    Returns:
        (...,3,H,W), same dtype. A vector of length 0 stays 0.
    """
    kept = torch.where(mask, normals, 0.0)
    length = torch.linalg.vector_norm(kept, dim=-3, keepdim=True)
    return kept / torch.where(length > 0, length, 1.0)


def face_camera(normals: Tensor, rays: Tensor) -> Tensor:
    """Return the normals, with those that point away from the camera turned round.

    Convention:
        A normal faces the camera where normal . ray <= 0. Straight ahead, the ray is (0, 0, -1), so (0, 0, -1)
        becomes (0, 0, 1).

    Args:
        normals: (...,3,H,W) float in our frame.
        rays: (...,3,H,W) float from ``pixel_rays``.

    Returns:
        (...,3,H,W), same dtype.
    """
    away = (normals * rays).sum(dim=-3, keepdim=True) > 0
    return torch.where(away, -normals, normals)


def convert_frame(normals: Tensor, source: str, target: str) -> Tensor:
    """Return normals expressed in another frame.

    Convention:
        "opengl": ours, and that of Hypersim and diffusers' Marigold pipelines: x right, y up, z toward the viewer.
        "opencv": x right, y down, z forward.
        "dsine": x left, y up, z toward the viewer: GonzaloMG's marigold-normals and E2E checkpoints, DSINE's files.
        A wall head-on is (0, 0, 1), (0, 0, -1) and (0, 0, 1); a floor (0, 1, 0), (0, -1, 0) and (0, 1, 0); a wall on
        the left (1, 0, 0), (1, 0, 0) and (-1, 0, 0).

    Args:
        normals: (...,3,H,W) float, facing the camera, in frame ``source``.
        source: name of the frame the normals are in.
        target: name of the frame wanted.

    Returns:
        (...,3,H,W), same dtype.

    Raises:
        InputError: a frame of that name does not exist.
    """
    signs = [a * b for a, b in zip(_signs(source), _signs(target), strict=True)]
    return normals * normals.new_tensor(signs)[:, None, None]


def flip_horizontal(normals: Tensor) -> Tensor:
    """Return the normals of the mirror image: columns reversed and x negated.

    Args:
        normals: (...,3,H,W) float, in any of the frames of ``convert_frame``.

    Returns:
        (...,3,H,W), same dtype.
    """
    return normals.flip(-1) * normals.new_tensor([-1.0, 1.0, 1.0])[:, None, None]


def _signs(frame: str) -> tuple[float, float, float]:
    if frame not in _SIGNS_FROM_OPENGL:
        raise InputError(f"no frame of normals is named {frame!r}; choose one of {', '.join(_SIGNS_FROM_OPENGL)}.")
    return _SIGNS_FROM_OPENGL[frame]
