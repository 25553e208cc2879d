"""Further files that people ask for of a depth: a point cloud, near is white, millimetres, a mesh."""

from collections.abc import Callable

import numpy as np

from lightning_modules.inference.mesh import glb_bytes, ply_mesh_bytes
from lightning_modules.inference.point_cloud import PointCloudCamera, ply_bytes, point_cloud
from lightning_modules.inference.results import png_bytes

_LARGEST_16_BIT = 65535
_MESH_POINTS = 400_000

# What is made of relative depth (H,W) in [0, 1], the image, and the camera.
SurfaceMaker = Callable[[np.ndarray, np.ndarray, PointCloudCamera], bytes]


def near_white_bytes(depth: np.ndarray, image: np.ndarray, camera: PointCloudCamera) -> bytes:
    """Return a 16-bit grey PNG over the full range of the image: its nearest point white, its farthest black."""
    low, high = float(depth.min()), float(depth.max())
    return _png16((high - depth) / max(high - low, 1e-6) * _LARGEST_16_BIT)


def millimetres_bytes(depth: np.ndarray, image: np.ndarray, camera: PointCloudCamera) -> bytes:
    """Return a 16-bit PNG in millimetres between the camera's ``near_m`` and ``far_m``, which are a choice."""
    return _png16((camera.near_m + (camera.far_m - camera.near_m) * depth) * 1000)


def _points(depth: np.ndarray, image: np.ndarray, camera: PointCloudCamera) -> bytes:
    return ply_bytes(*point_cloud(depth, image, camera))


def _glb(depth: np.ndarray, image: np.ndarray, camera: PointCloudCamera) -> bytes:
    return glb_bytes(*point_cloud(depth, image, camera, _MESH_POINTS))


def _ply(depth: np.ndarray, image: np.ndarray, camera: PointCloudCamera) -> bytes:
    return ply_mesh_bytes(*point_cloud(depth, image, camera, _MESH_POINTS))


# By the option that asks for them: the endings of the files, and what makes them.
SURFACE_FILES: dict[str, dict[str, SurfaceMaker]] = {
    "point-cloud": {"points.ply": _points},
    "near-white": {"near_white.png": near_white_bytes},
    "millimetres": {"mm.png": millimetres_bytes},
    "mesh": {"mesh.glb": _glb, "mesh.ply": _ply},
}


def _png16(values: np.ndarray) -> bytes:
    return png_bytes((values + 0.5).clip(0, _LARGEST_16_BIT).astype(np.uint16))
