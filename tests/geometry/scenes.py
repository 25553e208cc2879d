"""Analytic scenes in the camera frame: exact planar depth and normals of planes, spheres and boxes."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry import camera_from_hypersim, camera_from_intrinsics, face_camera, pixel_rays

Surface = Callable[[Tensor], tuple[Tensor, Tensor]]


def vector(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None]


def pinhole_rays(height: int = 96, width: int = 128, pixel_center: float = 0.5) -> Tensor:
    focal = 0.866 * width
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)
    return pixel_rays(camera_from_intrinsics(intrinsics), height, width, pixel_center)


def tilt_shift_rays(height: int = 96, width: int = 128) -> Tensor:
    """A camera tilted and shifted about ten times as much as Hypersim's ai_037_002."""
    m_cam_from_uv = torch.tensor([[0.58, 0, -0.2], [0, 0.43, 0.3], [0.02, 0.04, -1.04]], dtype=torch.float64)
    return pixel_rays(camera_from_hypersim(m_cam_from_uv, height, width), height, width)


def plane(normal: list[float], offset: float) -> Surface:
    """The plane normal . point = offset; the normal is scaled to length 1 first."""
    unit = vector(normal) / vector(normal).norm()
    return lambda rays: (offset / (unit * rays).sum(0, keepdim=True), unit.expand_as(rays))


def sphere(centre: list[float], radius: float) -> Surface:
    def intersect(rays: Tensor) -> tuple[Tensor, Tensor]:
        middle = vector(centre)
        a, b = (rays * rays).sum(0, keepdim=True), (rays * middle).sum(0, keepdim=True)
        root = b * b - a * ((middle * middle).sum() - radius**2)
        depth = torch.where(root > 0, (b - root.clamp(min=0).sqrt()) / a, torch.inf)
        return depth, torch.where(root > 0, depth * rays - middle, 0.0) / radius

    return intersect


def box(low: list[float], high: list[float]) -> Surface:
    """An axis-aligned box."""

    def intersect(rays: Tensor) -> tuple[Tensor, Tensor]:
        one, other = vector(low) / rays, vector(high) / rays
        enter, axis = torch.minimum(one, other).max(0, keepdim=True)
        hit = enter < torch.maximum(one, other).min(0, keepdim=True).values
        return torch.where(hit, enter, torch.inf), torch.zeros_like(rays).scatter_(0, axis, 1.0)

    return intersect


def cast(rays: Tensor, *surfaces: Surface) -> tuple[Tensor, Tensor]:
    """Return depth (1,H,W) and normals (3,H,W), float64, of the nearest surface in front of the camera."""
    depth, normals = torch.full_like(rays[:1], torch.inf), torch.zeros_like(rays)
    for surface in surfaces:
        hit_depth, hit_normals = surface(rays)
        nearer = (hit_depth > 0) & (hit_depth < depth)
        depth, normals = torch.where(nearer, hit_depth, depth), torch.where(nearer, hit_normals, normals)
    return depth, face_camera(normals, rays)


def box_room(rays: Tensor) -> tuple[Tensor, Tensor]:
    """A box and a sphere on a floor before a wall."""
    floor, wall = plane([0, 1, 0], -1.2), plane([0.1, 0, 1], -5.0)
    return cast(rays, floor, wall, box([-1.0, -1.2, -3.5], [0.1, -0.2, -2.5]), sphere([0.8, -0.6, -3.2], 0.6))


def step_edge(rays: Tensor) -> tuple[Tensor, Tensor]:
    """Two slanted planes with a jump in depth along an oblique line."""
    near, far = cast(rays, plane([0.3, 0.2, 0.9], -2.0)), cast(rays, plane([-0.4, 0.1, 0.9], -3.5))
    height, width = rays.shape[-2:]
    left = torch.arange(width) + 0.4 * torch.arange(height)[:, None] < 0.7 * width
    return torch.where(left, near[0], far[0]), torch.where(left, near[1], far[1])


def at_depth_edges(depth: Tensor) -> Tensor:
    """Return the pixels (1,H,W) one of whose four neighbours lies on another side of a jump in depth."""
    inverse = 1 / depth[None]
    farthest = -F.max_pool2d(-inverse, 3, 1, 1)
    return ((F.max_pool2d(inverse, 3, 1, 1) - farthest) / inverse > 0.08)[0]


def angle_deg(one: Tensor, other: Tensor) -> Tensor:
    """Return the angle (...,1,H,W) between vectors in degrees, exact for small angles, too."""
    one, other = one.double(), other.double()
    sine = torch.linalg.cross(one, other, dim=-3).norm(dim=-3, keepdim=True)
    return torch.rad2deg(torch.atan2(sine, (one * other).sum(-3, keepdim=True)))
