"""Intrinsics from elsewhere: which numbers can be those of a camera."""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from geometry.camera import pixel_rays
from geometry.errors import InputError


def pinhole_matrix(numbers: Sequence[float], size: tuple[int, int], source: object, image: str) -> Tensor:
    """Return K from (fx, fy, cx, cy), checked against the image.

    Args:
        numbers: fx, fy, cx, cy in pixels.
        size: (height, width) of the image in pixels.
        source: where they come from, for messages.
        image: the image, for messages.

    Returns:
        K (3,3) float64 in pixels.

    Raises:
        InputError: a number is none, a focal length is not positive, or the principal point lies outside the image.
    """
    (height, width), (fx, fy, cx, cy) = size, numbers
    if not (all(map(math.isfinite, numbers)) and fx > 0 and fy > 0):
        raise InputError(f"{source}: focal lengths must be positive numbers of pixels, not {fx:g} and {fy:g}.")
    if not (0 < cx < width and 0 < cy < height):
        raise InputError(
            f"{source}: the principal point ({cx:g}, {cy:g}) lies outside image {image!r} of {height}x{width} "
            "pixels. Intrinsics are in pixels (fx fy cx cy) of the image as it is on disk, before --size or --crop."
        )
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


@lru_cache(maxsize=2)
def cached_rays(camera: tuple[float, ...], size: tuple[int, int], pixel_center: float) -> Tensor:
    """Return rays (3,H,W) float32 of a camera's nine entries: consecutive frames share their camera."""
    return pixel_rays(torch.tensor(camera, dtype=torch.float64).reshape(3, 3), *size, pixel_center).float()
