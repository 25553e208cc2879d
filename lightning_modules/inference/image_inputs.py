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
        image: a file, an open Pillow image, an array (H,W,3) or (H,W), or a tensor (3,H,W) or (H,W). Numbers are
            uint8, uint16, or floating point in [0, 1].

    Returns:
        (H,W,3), uint8, uint16 or floating point in [0, 1].

    Raises:
        InputError: it is none of these; the message says what would make it one.
    """
    if isinstance(image, Image.Image):
        return rgb_of(image)
    if isinstance(image, Tensor | np.ndarray):
        return _as_rgb(image)
    if isinstance(image, str | Path) or hasattr(image, "read"):
        return read_image(image)
    raise InputError(
        f"a {type(image).__name__} is no image; give a file, an open Pillow image, an array (H,W,3) or a tensor "
        "(3,H,W), one at a time."
    )


def largest_value(image: np.ndarray) -> int:
    """Return what white is in an image as ``as_rgb`` returns it: 255, 65535, or 1 in floating point."""
    return int(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else 1


def as_bytes(image: np.ndarray) -> np.ndarray:
    """Return an image as ``as_rgb`` returns it in 8 bits, (H,W,3) uint8."""
    if image.dtype == np.uint8:
        return image
    return (image.astype(np.float32) * (255 / largest_value(image))).round().astype(np.uint8)


def _as_rgb(image: Tensor | np.ndarray) -> np.ndarray:
    layout = "(3,H,W)" if isinstance(image, Tensor) else "(H,W,3)"
    kind = f"{'a tensor' if isinstance(image, Tensor) else 'an array'} of shape {tuple(image.shape)}"
    channels = 0 if isinstance(image, Tensor) else 2
    if image.ndim not in (2, 3) or 0 in image.shape or (image.ndim == 3 and image.shape[channels] != 3):
        raise InputError(f"{kind} is no image; give {layout}{_remedy(tuple(image.shape), channels)}.")
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.dtype.is_floating_point else image).numpy()
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if image.dtype not in ("u1", "u2", "f2", "f4", "f8"):
        raise InputError(f"{kind} has the type {image.dtype}; give uint8, uint16, or floating point in [0, 1].")
    if image.dtype.kind == "f":
        _check_range(image, kind)
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def _remedy(shape: tuple[int, ...], channels: int) -> str:
    """Return what would make an image of an array or a tensor of another shape, as the end of a sentence."""
    if len(shape) == 4:
        return ", one image of the batch at a time"
    if len(shape) != 3 or 0 in shape:
        return ""
    turned = "permute(2, 0, 1)" if channels == 0 else "transpose(1, 2, 0)"
    if shape[2 - channels] == 3:
        return f", as image.{turned} would be"
    if shape[channels] == 4:
        return f", without transparency: image{'[:3]' if channels == 0 else '[..., :3]'}"
    return ", or (H,W) for grey" if shape[channels] == 1 else ""


def _check_range(image: np.ndarray, kind: str) -> None:
    low, high = float(image.min()), float(image.max())
    if 0 <= low and high <= 1:
        return
    if not np.isfinite([low, high]).all():
        raise InputError(f"{kind} has values that are NaN or infinite; an image lies in [0, 1].")
    remedy = "divide it by 255" if low >= 0 else "if it lies in [-1, 1], give (image + 1) / 2"
    raise InputError(f"{kind} goes from {low:g} to {high:g}; floating point must lie in [0, 1]: {remedy}.")
