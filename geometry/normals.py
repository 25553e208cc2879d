"""Surface normals: from depth, between coordinate frames, after resizing and mirroring.

Convention (the whole file):
    Our camera frame, also called "opengl": x right, y up, z toward the viewer. Normals are unit vectors that
    face the camera; a wall seen head-on is (0, 0, 1), a floor (0, 1, 0), a wall on the left (1, 0, 0).
    Where a normal is unknown it is (0, 0, 0).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.camera import unproject
from geometry.errors import InputError
from geometry.host_values import values_like
from geometry.planes import surface_normals

# Half a step of float16 (10 bits after the point) relative to the value.
FLOAT16_ERROR = 2.0**-11

# Signs of (x, y, z) that turn a normal in our frame into one in the named frame. They are their own inverse.
_SIGNS_FROM_OPENGL: dict[str, tuple[float, float, float]] = {
    "opengl": (1.0, 1.0, 1.0),
    "opencv": (1.0, -1.0, -1.0),
    "dsine": (-1.0, 1.0, 1.0),
}


@torch.no_grad()
def normals_from_depth(
    depth: Tensor, rays: Tensor, valid_mask: Tensor, relative_error: float = FLOAT16_ERROR, error_m: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the normals of the surfaces that a depth image shows, sharp at depth edges.

    Three steps: rounding errors of the stored depth are averaged out within a surface; slopes are taken on the side
    of a pixel where the surface continues; where even that side is bent, the pixel takes over the plane of the
    neighbour that is straightest and fits its depth. On a plane the result is exact. Not differentiable.

    Convention:
        Unit vectors in our frame (x right, y up, z toward the viewer) that face the camera. Depth 2 m everywhere gives
        (0, 0, 1); a floor, whose depth shrinks toward the bottom of the image, gives (0, 1, 0).

    Args:
        depth: (...,1,H,W) float, planar depth in metres. Half precision is upcast.
        rays: (...,3,H,W) float from ``pixel_rays``. Take ``pixel_center=0`` for Virtual KITTI.
        valid_mask: (...,1,H,W) bool, where depth is known. Depth that is not positive and finite is left out, too.
        relative_error: largest rounding error of the stored depth relative to depth. The default is float16's;
            0 together with ``error_m=0`` means exact depth, which is not smoothed.
        error_m: largest rounding error in metres, 0.005 for depth stored in whole centimetres. Added to the former.

    Returns:
        ``(normals, mask)``: (...,3,H,W) float32 (float64 if an input is), zero outside the mask; (...,1,H,W) bool,
        where the pixel is valid and has a valid neighbour along either axis of the image.

    Source:
        Feng et al., "D2NT: A High-Performing Depth-to-Normal Translator", 2023: discontinuity-aware gradients and
        refinement by the neighbour with the smallest Laplacian. Deviations: inverse depth in place of depth, smoothing
        of rounding errors, and a neighbour is taken over only if its plane passes near the pixel.
    """
    dtype = torch.promote_types(torch.promote_types(depth.dtype, rays.dtype), torch.float32)
    values = (depth.to("cpu", dtype).numpy(), rays.to("cpu", dtype).numpy(), valid_mask.cpu().numpy())
    normals, mask = surface_normals(*values, relative_error, error_m)
    return torch.from_numpy(normals).to(depth.device), torch.from_numpy(mask).to(depth.device)


@torch.no_grad()
def normals_from_depth_finite_differences(depth: Tensor, rays: Tensor, valid_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return normals from central differences of the unprojected points: the plain baseline, wrong at depth edges.

    Convention:
        As ``normals_from_depth``.

    Args:
        depth: (...,1,H,W) float, planar depth in metres. Half precision is upcast.
        rays: (...,3,H,W) float from ``pixel_rays``.
        valid_mask: (...,1,H,W) bool, where depth is known.

    Returns:
        ``(normals, mask)`` as ``normals_from_depth``; unknown on the outermost pixels and next to invalid ones.
    """
    dtype = torch.promote_types(torch.promote_types(depth.dtype, rays.dtype), torch.float32)
    depth, rays = depth.to(dtype), rays.to(dtype)
    valid_mask = valid_mask & depth.isfinite() & (depth > 0)
    points = torch.where(valid_mask, unproject(depth, rays), torch.nan)
    to_right = F.pad(points[..., :, 2:] - points[..., :, :-2], (1, 1), value=torch.nan)
    to_top = F.pad(points[..., :-2, :] - points[..., 2:, :], (0, 0, 1, 1), value=torch.nan)
    normals = torch.linalg.cross(to_right, to_top, dim=-3)
    mask = valid_mask & normals.isfinite().all(dim=-3, keepdim=True)
    return face_camera(renormalize(normals, mask), rays), mask


def renormalize(normals: Tensor, mask: Tensor) -> Tensor:
    """Return unit vectors inside the mask and zeros outside, for instance after resizing.

    Convention:
        (0, 3, 4) becomes (0, 0.6, 0.8). Averages of opposite normals, of length 0, stay (0, 0, 0).

    Args:
        normals: (...,3,H,W) float, any length.
        mask: (...,1,H,W) bool, where the normals are known.

    Returns:
        (...,3,H,W), same dtype. What lies outside the mask, NaN included, reaches neither value nor gradient.
    """
    kept = torch.where(mask, normals, 0.0).to(torch.promote_types(normals.dtype, torch.float32))
    squared_length = kept.square().sum(dim=-3, keepdim=True)
    return (kept / torch.where(squared_length > 0, squared_length, 1.0).sqrt()).to(normals.dtype)


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
    return normals * values_like(signs, normals)[:, None, None]


def flip_horizontal(normals: Tensor) -> Tensor:
    """Return the normals of the mirror image: columns reversed and x negated.

    Args:
        normals: (...,3,H,W) float, in any of the frames of ``convert_frame``.

    Returns:
        (...,3,H,W), same dtype.
    """
    return normals.flip(-1) * values_like([-1.0, 1.0, 1.0], normals)[:, None, None]


def _signs(frame: str) -> tuple[float, float, float]:
    if frame not in _SIGNS_FROM_OPENGL:
        raise InputError(f"no frame of normals is named {frame!r}; choose one of {', '.join(_SIGNS_FROM_OPENGL)}.")
    return _SIGNS_FROM_OPENGL[frame]


def closest_member(members: Tensor) -> Tensor:
    """Return which of several predictions of normals is closest to their mean, as a whole.

    Convention:
        The mean is taken of the two spherical angles of each pixel, so it depends on the frame, and close to the
        border of the azimuth it is no good mean. It is what the published figures were made with.

    Args:
        members: (N,B,3,H,W) unit vectors, in the frame of the network.

    Returns:
        (B,) int64, the number of the member with the smallest sum of angles to the mean.

    Source:
        Fu et al., GeoWizard, public inference code; taken over by Martin Garcia et al. for their evaluation.
    """
    x, y, z = members.unbind(dim=2)
    azimuth = torch.atan2(y, x).mean(dim=0)
    polar = torch.atan2(torch.hypot(x, y), z).mean(dim=0)
    mean = torch.stack([polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos()], dim=1)
    cosine = torch.cosine_similarity(mean[None], members, dim=2).clamp(-0.999, 0.999)
    return torch.acos(cosine).sum(dim=(2, 3)).argmin(dim=0)
