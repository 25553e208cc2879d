"""The rules by which images, depth and normals change size: each in the way that keeps its meaning."""

import cv2
import numpy as np
import torch
from torch.nn.functional import interpolate

Array = np.ndarray
Size = tuple[int, int]

# A resized pixel has a normal where at least this share of its area has one.
MIN_NORMALS_COVERAGE = 0.5


def resize_image(image: Array, size: Size) -> Array:
    """Return an image resized with an antialiased bilinear filter, as diffusers' Marigold pipelines resize theirs.

    Args:
        image: (H,W,3) float32 in [0, 1].
        size: (height, width) wanted.

    Returns:
        (height,width,3) float32 in [0, 1].
    """
    if image.shape[:2] == tuple(size):
        return image
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).clamp(0, 1).numpy()


def resize_nearest(values: Array, size: Size) -> Array:
    """Return depth or a mask resized by taking, for every new pixel, the old pixel that its centre falls into.

    Args:
        values: (H,W,...) array.
        size: (height, width) wanted.

    Returns:
        (height,width,...), same type; every value is one of the old ones.
    """
    if values.shape[:2] == tuple(size):
        return values
    rows, columns = (
        np.floor((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, values.shape[:2], strict=True)
    )
    return values[rows[:, None], columns]


def resize_normals(normals: Array, size: Size) -> Array:
    """Return normals averaged over the known pixels that a new pixel covers, then made unit vectors again.

    Args:
        normals: (3,H,W) float32, zero where unknown.
        size: (height, width) wanted.

    Returns:
        (3,height,width) float32, zero where less than half of the pixel's area is known.
    """
    if normals.shape[1:] == tuple(size):
        return normals
    known = (normals[0] != 0) | (normals[1] != 0) | (normals[2] != 0)
    stacked = cv2.merge([*normals, known.astype(np.float32)])
    shrinks = size[0] <= normals.shape[1] and size[1] <= normals.shape[2]
    averaged = cv2.resize(stacked, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    *components, coverage = cv2.split(averaged)
    vectors = np.stack(components)
    length = np.sqrt(np.square(vectors).sum(axis=0))
    # Opposite normals that cancel leave no direction.
    usable = (coverage >= MIN_NORMALS_COVERAGE) & (length > 1e-3)
    return np.where(usable, vectors / np.maximum(length, 1e-3), 0).astype(np.float32)
