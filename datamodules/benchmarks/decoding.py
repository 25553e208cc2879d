"""What the benchmarks' files hold: bytes in, arrays out.

All functions raise ``ValueError`` where the bytes are not what they should be, or claim to be too much.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from datamodules.sources import image_files
from datamodules.sources.array_files import read_array_file
from datamodules.sources.image_files import decode_png
from geometry.errors import InputError
from geometry.files import npy_arrays

Array = np.ndarray


def decode_image(data: bytes) -> Array:
    """Return an image as (H,W,3) uint8 in the order red, green, blue, as it is stored: not turned by its EXIF tag.

    What is transparent lies on white.

    Args:
        data: bytes of a .png or .jpg.
    """
    return image_files.decode_image(data, "it", is_upright=False)


def decode_depth_png(data: bytes, units_per_m: float) -> Array:
    """Return the depth in a 16-bit PNG as (H,W) float32 in metres; 0 where unknown.

    Args:
        data: bytes of the file.
        units_per_m: stored value of one metre.
    """
    stored = decode_png(data, cv2.IMREAD_UNCHANGED, "it")
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise ValueError("it is no 16-bit grey PNG")
    return (stored / units_per_m).astype(np.float32)


def decode_npy(data: bytes) -> Array:
    """Return the array in a .npy file, without axes of length 1. Nothing is unpickled.

    Args:
        data: bytes of the file.
    """
    return npy_arrays.decode_npy(data).squeeze()


def decode_floats(data: bytes, height: int, width: int) -> Array:
    """Return raw little-endian float32 numbers as (height,width).

    Args:
        data: the bytes, row by row.
        height: number of rows.
        width: number of columns.
    """
    if len(data) != 4 * height * width:
        raise ValueError(f"it holds {len(data)} bytes, not those of {height}x{width} float32 numbers")
    return np.frombuffer(data, "<f4").reshape(height, width).copy()


def decode_normals_png(data: bytes) -> tuple[Array, Array]:
    """Return normals from an 8-bit PNG, and where they are known: where the pixel is not black.

    Args:
        data: bytes of the file; (red, green, blue) = (normal + 1) / 2 * 255.

    Returns:
        (H,W,3) float32 and (H,W) bool.
    """
    stored = decode_png(data, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH, "it")
    if stored.dtype != np.uint8:
        raise ValueError("it is no 8-bit colour PNG")
    return stored.astype(np.float32) / 255 * 2 - 1, stored.max(axis=2) > 0


def decode_normals_exr(data: bytes) -> tuple[Array, Array]:
    """Return normals from an OpenEXR file, and where they are known: where they are longer than a half.

    Args:
        data: bytes of the file, channels R, G, B or X, Y, Z.

    Returns:
        (H,W,3) float32 and (H,W) bool.

    Raises:
        InputError: the file is damaged, or the OpenEXR package is not installed.
    """
    # OpenEXR reads from files alone.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "normals.exr"
        path.write_bytes(data)
        try:
            normals = read_array_file(path, channels=3)
        except InputError as error:
            raise InputError(str(error).replace(str(path), "it")) from error
    return _with_mask(normals)


def decode_normals_npy(data: bytes) -> tuple[Array, Array]:
    """Return normals from a .npy file, and where they are known: where they are longer than a half.

    Args:
        data: bytes of the file, (H,W,3) numbers.

    Returns:
        (H,W,3) float32 and (H,W) bool.
    """
    normals = decode_npy(data)
    if normals.ndim != 3 or normals.shape[2] != 3:
        raise ValueError(f"its shape is {normals.shape}, not (H, W, 3)")
    return _with_mask(normals)


def _with_mask(normals: Array) -> tuple[Array, Array]:
    normals = normals.astype(np.float32)
    return normals, np.linalg.norm(normals, axis=2) > 0.5
