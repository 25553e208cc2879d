"""The rule by which images change size."""

import numpy as np
import torch
from torch.nn.functional import interpolate

Array = np.ndarray
Size = tuple[int, int]


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
