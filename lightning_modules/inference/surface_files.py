"""Further files that people ask for of a depth: a point cloud, near is white, millimetres, a mesh."""

from collections.abc import Callable

import numpy as np

from lightning_modules.inference.mesh import glb_bytes, ply_mesh_bytes
from lightning_modules.inference.point_cloud import MOST_POINTS, PointCloudCamera, ply_bytes, point_cloud
from lightning_modules.inference.results import LARGEST_16_BIT, rounded_png16

_MESH_POINTS = 400_000

# What is made of relative depth (H,W) in [0, 1], the image, and the camera.
SurfaceMaker = Callable[[np.ndarray, np.ndarray, PointCloudCamera], bytes]


def near_white_bytes(depth: np.ndarray, image: np.ndarray, camera: PointCloudCamera) -> bytes:
    """Return a 16-bit grey PNG over the full range of the image: its nearest point white, its farthest black."""
    return rounded_png16(nearness(depth) * LARGEST_16_BIT)


def millimetres_bytes(depth: np.ndarray, image: np.ndarray, camera: PointCloudCamera) -> bytes:
    """Return a 16-bit PNG in millimetres between the camera's ``near_m`` and ``far_m``, which are a choice."""
    return rounded_png16((camera.near_m + (camera.far_m - camera.near_m) * depth) * 1000)


def nearness(depth: np.ndarray) -> np.ndarray:
    """Return depth (H,W) turned round over its full range: 1 for the nearest point, 0 for the farthest."""
    low, high = float(depth.min()), float(depth.max())
    return (high - depth) / max(high - low, 1e-6)


def _of_points(write: Callable[[np.ndarray, np.ndarray], bytes], most_points: int = MOST_POINTS) -> SurfaceMaker:
    """Return what writes the points that a depth image shows, and their colours, in a format."""
    return lambda depth, image, camera: write(*point_cloud(depth, image, camera, most_points))


# By the option that asks for them: the endings of the files, and what makes them.
SURFACE_FILES: dict[str, dict[str, SurfaceMaker]] = {
    "point-cloud": {"points.ply": _of_points(ply_bytes)},
    "near-white": {"near_white.png": near_white_bytes},
    "millimetres": {"mm.png": millimetres_bytes},
    "mesh": {
        "mesh.glb": _of_points(glb_bytes, _MESH_POINTS),
        "mesh.ply": _of_points(ply_mesh_bytes, _MESH_POINTS),
    },
}
