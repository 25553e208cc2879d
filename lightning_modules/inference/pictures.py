"""Reading pictures of every common kind as plain RGB, upright."""

import os
import stat
import warnings
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from geometry.errors import InputError

Picture = str | Path | IO[bytes] | Image.Image | np.ndarray | Tensor

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .tif .tiff .bmp .dib .gif .ppm .pgm .pbm .pnm .jp2 .avif .tga".split()
)
_PAPER_WHITE = 255


def read_picture(file: str | Path | IO[bytes], max_pixels: int | None = None) -> np.ndarray:
    """Return a picture as people see it: upright, in RGB, its first frame, on white where it is transparent.

    Grey becomes three equal channels. 16-bit grey keeps its bits; colour of more than 8 bits is rounded to 8. Floating
    point is taken as it is between 0 and 1, and divided by its largest value beyond.

    Args:
        file: a path, or an open binary file.
        max_pixels: refuse larger pictures before they are decoded; None takes what Pillow takes, 178 megapixels.

    Returns:
        (H,W,3), uint8, uint16 or float32 in [0, 1].

    Raises:
        InputError: the file is not there, is no picture, is damaged or too large.
    """
    name = file if isinstance(file, str | Path) else "the picture"
    try:
        if isinstance(file, str | Path) and not stat.S_ISREG(os.stat(file).st_mode):
            raise InputError("this is no regular file.")  # a pipe would be waited for
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures and odd metadata
            with Image.open(file) as picture:
                _check_size(picture, max_pixels)
                return rgb_of(picture)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is no picture of a known kind.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} has more than 178 megapixels. Make it smaller first.") from error
    except MemoryError as error:
        raise InputError(f"{name} does not fit in memory.") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, OverflowError) as error:
        raise InputError(f"{name} cannot be read: {_reason(error)}") from error


def picture_size(file: Path) -> tuple[int, int]:
    """Return (height, width) of a picture, upright, without decoding it.

    Raises:
        InputError: the file cannot be opened as a picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as picture:
                width, height = picture.size
                is_turned = picture.getexif().get(0x0112, 1) >= 5
    except Exception as error:
        raise InputError(f"{file} cannot be read: {_reason(error)}") from error
    return (width, height) if is_turned else (height, width)


def rgb_of(picture: Image.Image) -> np.ndarray:
    """Return an open Pillow image as ``read_picture`` does.

    Args:
        picture: an image of any mode.
    """
    picture = _upright(picture)
    if picture.mode.startswith(("I", "F")):
        return np.repeat(_high_depth(np.asarray(picture))[..., None], 3, axis=2)
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, (_PAPER_WHITE,) * 4)
        picture = Image.alpha_composite(paper, picture)
    return np.asarray(picture.convert("RGB"))


def _upright(picture: Image.Image) -> Image.Image:
    """Turn a picture as its EXIF data says; damaged EXIF data says nothing."""
    picture.load()
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # whatever Pillow makes of arbitrary bytes
        return picture


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


def _high_depth(grey: np.ndarray) -> np.ndarray:
    """Return (H,W) grey of more than 8 bits as uint16, or as float32 in [0, 1]."""
    if grey.dtype.kind in "ui" and grey.min() >= 0 and grey.max() <= 65535:
        return grey.astype(np.uint16)
    grey = np.nan_to_num(grey.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    return grey / max(1.0, float(grey.max()))


def _check_size(picture: Image.Image, max_pixels: int | None) -> None:
    pixels = picture.size[0] * picture.size[1]
    if max_pixels is not None and pixels > max_pixels:
        raise InputError(f"{pixels / 1e6:.0f} megapixels are too many; at most {max_pixels / 1e6:.0f} are taken.")


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
