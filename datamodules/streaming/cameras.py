"""The camera of a sample, from its description to a batch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from geometry.camera import flip_camera, recenter_camera

UNKNOWN = torch.full((3, 3), torch.nan)


def read_camera(info: Mapping[str, Any], width: int, flip: bool) -> Tensor:
    """Return the camera of a stored image, for pixels whose first has its centre at (0.5, 0.5).

    Args:
        info: the sample's description; what is no camera counts as an unknown one.
        width: of the image in pixels.
        flip: whether the image is mirrored left to right.

    Returns:
        (3,3) float32; NaN where the camera is unknown.
    """
    camera, pixel_center = info.get("camera_from_pixel"), info.get("pixel_center")
    try:
        matrix = torch.tensor(camera, dtype=torch.float64)
        centered = recenter_camera(matrix, float(pixel_center), 0.5)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return UNKNOWN
    if matrix.shape != (3, 3) or not bool(matrix.isfinite().all()):
        return UNKNOWN
    return (flip_camera(centered, width) if flip else centered).float()
