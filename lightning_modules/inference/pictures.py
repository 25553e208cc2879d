"""Reading pictures of every common kind as plain RGB, upright."""

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from torch import Tensor

from geometry.errors import InputError
from geometry.image_files import open_picture, rgb_of

Picture = str | Path | IO[bytes] | Image.Image | np.ndarray | Tensor

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .bmp .dib .gif .ppm .pgm .pbm .pnm .jp2 .avif .tga".split()
)


def read_picture(file: str | Path | IO[bytes], max_pixels: int | None = None) -> np.ndarray:
    """Return a picture as people see it: upright, in RGB, its first frame, on white where it is transparent.

    Grey becomes three equal channels. 16-bit grey keeps its bits; colour of more than 8 bits is rounded to 8. Floating
    point is taken as it is between 0 and 1, and divided by its largest value beyond.

    Args:
        file: a path, or an open binary file.
        max_pixels: refuse larger pictures before they are decoded; None takes 178 megapixels.

    Returns:
        (H,W,3), uint8, uint16 or float32 in [0, 1].

    Raises:
        InputError: the file is not there, is no picture of a known kind, is damaged or too large.
    """
    with open_picture(file, file if isinstance(file, str | Path) else "the picture", max_pixels) as picture:
        return rgb_of(picture)


def as_picture(picture: Picture) -> np.ndarray:
    """Return whatever stands for a picture as an array (H,W,3).

    Args:
        picture: a file, an open Pillow image, an array (H,W,3) or (H,W), or a tensor (3,H,W) in [0, 1].

    Raises:
        InputError: it is none of these.
    """
    if isinstance(picture, Image.Image):
        return rgb_of(picture)
    if isinstance(picture, Tensor):
        picture = picture.detach().cpu().float().movedim(0, -1).numpy() if picture.ndim == 3 else picture.numpy()
    if not isinstance(picture, np.ndarray):
        return read_picture(picture)
    image = np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else picture
    if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype not in ("u1", "u2", "f2", "f4", "f8"):
        raise InputError(
            f"an array of shape {picture.shape} and type {picture.dtype} is no picture; give (H,W,3) of uint8, uint16 "
            "or floating point in [0, 1], or a tensor (3,H,W) in [0, 1]."
        )
    if image.dtype.kind == "f" and not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise InputError("a picture in floating point must lie in [0, 1].")
    return image
