"""Depth as a cloud of coloured points, in the PLY format."""

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from geometry.camera import camera_from_intrinsics, pixel_rays, unproject
from geometry.errors import InputError
from geometry.modalities import Modality
from lightning_modules.inference.image_inputs import as_bytes

MOST_POINTS = 2_000_000


@dataclass(frozen=True)
class PointCloudCamera:
    """How relative depth becomes points.

    Attributes:
        intrinsics: (fx, fy, cx, cy) in pixels of the image; pixel centres lie at +0.5.
        fov_deg: field of view along the longer side, where intrinsics are not known.
        near_m: depth of the nearest point, relative depth 0.
        far_m: depth of the farthest point, relative depth 1.

    Raises:
        InputError: a value is impossible.
    """

    intrinsics: tuple[float, float, float, float] | None = None
    fov_deg: float = 55.0
    near_m: float = 1.0
    far_m: float = 10.0

    def __post_init__(self) -> None:
        if not 0 < self.fov_deg < 180 or not 0 < self.near_m < self.far_m < math.inf:
            raise InputError(
                f"a point cloud needs 0 < fov_deg < 180 and 0 < near_m < far_m, got {self.fov_deg}, {self.near_m} and "
                f"{self.far_m}."
            )
        if self.intrinsics is not None and not (
            all(map(math.isfinite, self.intrinsics)) and min(self.intrinsics[:2]) > 0
        ):
            raise InputError(f"intrinsics must be finite, with focal lengths larger than 0, got {self.intrinsics}.")

    def matrix(self, height: int, width: int) -> torch.Tensor:
        """Return the intrinsic matrix (3,3) float64 for an image of a size in pixels."""
        focal_length_px = max(height, width) / 2 / math.tan(math.radians(self.fov_deg) / 2)
        fx, fy, cx, cy = self.intrinsics or (focal_length_px, focal_length_px, width / 2, height / 2)
        return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)

    def stretch(self, modality: Modality, prediction: np.ndarray) -> np.ndarray:
        """Return a published prediction (H,W) of a surface as relative depth between ``near_m`` and ``far_m``."""
        return modality.stretch(torch.from_numpy(prediction), self.far_m / self.near_m).numpy()


def metric_range(metres: np.ndarray, camera: PointCloudCamera) -> tuple[np.ndarray, PointCloudCamera]:
    """Return depth in metres as relative depth, and the camera with the range that it is relative to.

    Args:
        metres: (H,W) float32, positive.
        camera: the camera, whose own range does not count.
    """
    near, far = float(metres.min()), float(metres.max())
    far = far if far > near else near * 1.001
    return (metres.astype(np.float64) - near) / (far - near), replace(camera, near_m=near, far_m=far)


def point_cloud(
    depth: np.ndarray, image: np.ndarray, camera: PointCloudCamera, most_points: int = MOST_POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Return the points that a depth image shows, and their colours.

    Convention:
        x right, y up, z toward the viewer, metres between ``near_m`` and ``far_m``. The scale is a choice, for relative
        depth has none. Of large images every second, third, ... row and column is taken.

    Args:
        depth: (H,W) float32 in [0, 1], linear between the two: see ``PointCloudCamera.stretch``.
        image: (H,W,3) uint8, uint16, or float in [0, 1].
        camera: the camera and the range.
        most_points: bound for height x width of the result.

    Returns:
        ``(points, colors)``: (h,w,3) float32 and (h,w,3) uint8.
    """
    height, width = depth.shape
    step = next(step for step in itertools.count(1) if -(-height // step) * -(-width // step) <= most_points)
    rows, columns = slice(0, height, step), slice(0, width, step)
    metric = camera.near_m + (camera.far_m - camera.near_m) * torch.from_numpy(depth[rows, columns].astype(np.float64))
    # The image of every step-th pixel has a pinhole of its own: pixel centres stay where they were.
    pinhole = camera.matrix(height, width)
    pinhole[:2] /= step
    pinhole[:2, 2] += 0.5 - 0.5 / step
    rays = pixel_rays(camera_from_intrinsics(pinhole), *metric.shape)
    points = unproject(metric[None], rays).movedim(0, -1).float().numpy()
    return points, as_bytes(image[rows, columns])


def ply_bytes(points: np.ndarray, colors: np.ndarray, triangles: np.ndarray | None = None) -> bytes:
    """Return coloured points, or the surface through them, as the bytes of a binary PLY file.

    Args:
        points: (...,3) float32.
        colors: (...,3) uint8.
        triangles: (N,3) uint32, numbers of the points at the corners of each; None for points alone.
    """
    points, colors = points.reshape(-1, 3), colors.reshape(-1, 3)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    header += [f"property uchar {name}" for name in ("red", "green", "blue")]
    vertices = np.empty(len(points), [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["xyz"], vertices["rgb"] = points, colors
    content = vertices.tobytes()
    if triangles is not None:
        header += [f"element face {len(triangles)}", "property list uchar uint vertex_indices"]
        corners = np.empty(len(triangles), [("number", "u1"), ("corners", "<u4", 3)])
        corners["number"], corners["corners"] = 3, triangles
        content += corners.tobytes()
    return "\n".join([*header, "end_header", ""]).encode("ascii") + content
