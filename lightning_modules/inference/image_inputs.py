"""Reading images of every common kind as plain RGB, upright."""

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from torch import Tensor

from geometry.errors import InputError
from geometry.files.images import open_image, rgb_of

ImageLike = str | Path | IO[bytes] | Image.Image | np.ndarray | Tensor

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .bmp .dib .gif .ppm .pgm .pbm .pnm .jp2 .avif .tga".split()
)


def read_image(file: str | Path | IO[bytes], max_pixels: int | None = None) -> np.ndarray:
    """Return an image as people see it: upright, in RGB, its first frame, on white where it is transparent.

    Grey becomes three equal channels. 16-bit grey keeps its bits; colour of more than 8 bits is rounded to 8. Floating
    point is taken as it is between 0 and 1, and divided by its largest value beyond.

    Args:
        file: a path, or an open binary file.
        max_pixels: refuse larger images before they are decoded; None takes 178 megapixels.

    Returns:
        (H,W,3), uint8, uint16 or float32 in [0, 1].

    Raises:
        InputError: the file is not there, is no image of a known kind, is damaged or too large.
    """
    with open_image(file, file if isinstance(file, str | Path) else "the image", max_pixels) as image:
        return rgb_of(image)


def as_rgb(image: ImageLike) -> np.ndarray:
    """Return whatever stands for an image as an array (H,W,3).

    Args:
        image: a file, an open Pillow image, an array (H,W,3) or (H,W), or a tensor (3,H,W) in [0, 1].

    Raises:
        InputError: it is none of these.
    """
    if isinstance(image, Image.Image):
        return rgb_of(image)
    is_tensor = isinstance(image, Tensor)
    if isinstance(image, Tensor):
        image = image.detach().cpu().float().movedim(0, -1).numpy() if image.ndim == 3 else image.numpy()
    if not isinstance(image, np.ndarray):
        return read_image(image)
    rgb = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image
    if is_tensor and rgb.dtype == np.float32 and rgb.size and rgb.max() > 1:
        raise InputError(
            "a tensor (3,H,W) must lie in [0, 1]; this one reaches "
            f"{rgb.max():g}: divide it by 255, or give an array (H,W,3) of uint8."
        )
    if rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size or rgb.dtype not in ("u1", "u2", "f2", "f4", "f8"):
        raise InputError(
            f"an array of shape {image.shape} and type {image.dtype} is no image; give (H,W,3) of uint8, uint16 "
            "or floating point in [0, 1], or a tensor (3,H,W) in [0, 1]."
        )
    if rgb.dtype.kind == "f" and not (np.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 1):
        raise InputError("an image in floating point must lie in [0, 1].")
    return rgb
