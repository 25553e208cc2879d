"""Images, and numbers stored as PNG, in the files of raw data sets."""

import io
from pathlib import Path

import cv2
import numpy as np

from geometry.errors import InputError
from geometry.files.images import PNG_SIGNATURE, open_image, require_whole_png, rgb_of
from geometry.files.limits import MAX_ARRAY_BYTES, MAX_IMAGE_BYTES
from geometry.files.reading import read_regular_file

Array = np.ndarray
_REMEDY = "Download, extract or export it again."
# Channels times bytes of a PNG that OpenCV may return.
_MAX_PNG_PIXEL_BYTES = 8


def read_image(path: Path) -> Array:
    """Return the image in a file as people see it: upright, on white where it is transparent.

    Args:
        path: file of a format in ``geometry.files.images.FORMATS``.

    Returns:
        (H,W,3) uint8, RGB. 16 bits are reduced to 8, grey becomes colour.

    Raises:
        InputError: the file is missing, no image, damaged or too large.
    """
    return decode_image(_read(path), str(path))


def decode_image(data: bytes, name: str, is_upright: bool = True) -> Array:
    """Return the image in the bytes of a file; see ``read_image``.

    Args:
        data: bytes of the file.
        name: what messages call it.
        is_upright: turn it as its EXIF data says.

    Returns:
        (H,W,3) uint8, RGB.

    Raises:
        InputError: the bytes are no image, damaged, or claim too many pixels.
    """
    with open_image(io.BytesIO(data), name) as image:
        if image.has_transparency_data and not image.mode.startswith(("I", "F")):
            return rgb_of(image, is_upright)
    turn = 0 if is_upright else cv2.IMREAD_IGNORE_ORIENTATION
    return _decode(data, cv2.IMREAD_COLOR_RGB | turn, name)


def read_png(path: Path, flags: int) -> Array:
    """Return the numbers that a PNG file stores.

    Args:
        path: the file.
        flags: how OpenCV decodes it.

    Returns:
        (H,W) or (H,W,C) uint8 or uint16.

    Raises:
        InputError: the file is missing, no PNG, damaged or too large.
    """
    return decode_png(_read(path), flags, str(path))


def decode_png(data: bytes, flags: int, name: str) -> Array:
    """Return the numbers that the bytes of a PNG file store; see ``read_png``.

    Args:
        data: bytes of the file.
        flags: how OpenCV decodes it.
        name: what messages call it.

    Raises:
        InputError: the bytes are no PNG, damaged, or claim too many pixels.
    """
    require_whole_png(data, name)
    with open_image(io.BytesIO(data), name, MAX_ARRAY_BYTES // _MAX_PNG_PIXEL_BYTES):
        pass  # its size is bounded
    return _decode(data, flags, name)


def _read(path: Path) -> bytes:
    try:
        return read_regular_file(path, MAX_IMAGE_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing. Every frame needs its image and its depth.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}). {_REMEDY}") from error


def _decode(data: bytes, flags: int, name: str) -> Array:
    if data.startswith(PNG_SIGNATURE):
        require_whole_png(data, name)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise InputError(f"{name} cannot be read ({error}). {_REMEDY}") from error
    if image is None:
        raise InputError(f"{name} is no complete image that can be decoded. {_REMEDY}")
    return image
