"""Files that hold one number or one vector per pixel: .png, .npy, .npz, .exr and .pfm."""

import importlib.util
import math
import re
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from datamodules.sources.image_files import decode_png
from geometry.errors import InputError
from geometry.files.limits import MAX_ARRAY_BYTES, MAX_IMAGE_BYTES, MIB
from geometry.files.npy_arrays import decode_npy, read_npz_member
from geometry.files.reading import open_regular_file, read_regular_file, require_bytes
from geometry.files.zip_archives import open_zip

ARRAY_SUFFIXES = (".png", ".npy", ".npz", ".exr", ".pfm")
# Files that hold several arrays or channels, by name.
NAMING_SUFFIXES = (".npz", ".exr")
# Names under which one-channel images are commonly stored in OpenEXR files, the most telling first.
_EXR_DEPTH_CHANNELS = ("Z", "depth", "Depth", "Y")
_EXR_VECTOR_CHANNELS = (("X", "Y", "Z"), ("R", "G", "B"))
# Kind, width, height, scale; behind the last is one white space.
_PFM_HEADER = re.compile(rb"\s*" + rb"\s+".join([rb"(\S{1,64})"] * 4) + rb"\s")

Array = np.ndarray


def read_array_file(path: Path, channels: int, name: str | None = None) -> Array:
    """Return what a file stores for every pixel, in the stored type and without any scaling.

    Convention:
        Row 0 is the top of the image. Vectors are in the order x, y, z: the channels of a PNG as red, green, blue.

    Args:
        path: a .png, .npy, .npz, .exr or .pfm file. Nothing is ever unpickled.
        channels: 1 for a number per pixel, 3 for a vector.
        name: which array of a .npz file or channel of a .exr file to take. By default the only one; otherwise
            "depth" or "normals" in a .npz, and Z, depth or Y (R, G, B or X, Y, Z for vectors) in a .exr.

    Returns:
        (H,W) or (H,W,3) array of integers or floating-point numbers.

    Raises:
        InputError: the file is missing, damaged, of another format or shape, or ``name`` is not in it.
    """
    readers = {".png": _read_png, ".npz": _read_npz, ".exr": _read_exr}
    decoders = {".npy": decode_npy, ".pfm": read_pfm}
    suffix = path.suffix.lower()
    if suffix not in ARRAY_SUFFIXES:
        raise InputError(f"{path} is none of {', '.join(ARRAY_SUFFIXES)}.")
    try:
        if suffix in decoders:
            array = decoders[suffix](read_regular_file(path, MAX_ARRAY_BYTES + MIB))
        else:
            array = readers[suffix](path, channels, name)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing.") from error
    except InputError as error:
        if str(path) in str(error):
            raise
        raise InputError(f"{path} cannot be read ({str(error).rstrip('.')}).") from error
    except (OSError, ValueError, EOFError, RuntimeError, KeyError, MemoryError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}). Copy or export it again.") from error
    if array.dtype.kind not in "uif":
        raise InputError(f"{path} holds values of type {array.dtype}, not numbers.")
    return _in_image_order(array, channels, path)


def require_exr_reader() -> None:
    """Make sure that .exr files can be read.

    Raises:
        InputError: the OpenEXR package is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("OpenEXR") is None:
        raise InputError("reading .exr files needs the OpenEXR package. Install it with pip install -e '.[exr]'.")


def read_pfm(data: bytes) -> Array:
    """Return the image in a portable float map.

    Convention:
        The file holds rows from the bottom to the top; the array starts at the top. A negative scale in the header
        means little-endian numbers. The scale's size carries no unit that programs agree on, and is ignored.

    Args:
        data: bytes of the file: "PF" (three channels) or "Pf" (one), width, height, scale, one white space, numbers.

    Returns:
        (H,W) or (H,W,3) float32.

    Raises:
        ValueError: the bytes are no such file, or end early.
    """
    header = _PFM_HEADER.match(data)
    if header is None:
        raise ValueError("the header of the PFM file is incomplete")
    fields, start = header.groups(), header.end()
    channels = {b"PF": 3, b"Pf": 1}.get(fields[0])
    if channels is None:
        raise ValueError(f"a PFM file begins with PF or Pf, not {fields[0]!r}")
    width, height, scale = int(fields[1]), int(fields[2]), float(fields[3])
    if width < 1 or height < 1 or scale == 0 or not math.isfinite(scale):
        raise ValueError(f"width, height and scale of the PFM file are {width}, {height} and {scale}")
    wanted = width * height * channels
    if len(data) - start < 4 * wanted:
        raise ValueError(f"{4 * wanted} bytes of numbers are announced, {len(data) - start} are there")
    numbers = np.frombuffer(data, "<f4" if scale < 0 else ">f4", wanted, start)
    rows = numbers.reshape((height, width, 3) if channels == 3 else (height, width))
    return rows[::-1].astype(np.float32)


def _read_png(path: Path, channels: int, name: str | None) -> Array:
    flags = cv2.IMREAD_UNCHANGED if channels == 1 else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH
    array = decode_png(read_regular_file(path, MAX_IMAGE_BYTES), flags, str(path))
    if channels == 1 and array.dtype != np.uint16:
        raise InputError(f"{path} has {8 * array.dtype.itemsize} bits per channel: Depth must be a 16-bit grey PNG.")
    return array


def _read_npz(path: Path, channels: int, name: str | None) -> Array:
    with open_zip(path, MAX_IMAGE_BYTES) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
        default = "depth" if channels == 1 else "normals"
        wanted = name or (names[0] if len(names) == 1 else default)
        if wanted not in names:
            raise InputError(
                f"{path} has no array {wanted!r}; it holds {', '.join(names) or 'none'}. Choose one by --array_name."
            )
        return read_npz_member(archive, wanted)


def _read_exr(path: Path, channels: int, name: str | None) -> Array:
    require_exr_reader()
    import OpenEXR

    open_regular_file(path, MAX_IMAGE_BYTES).close()
    with OpenEXR.File(str(path), separate_channels=True, header_only=True) as file:
        _require_bounded(file.header(), len(file.parts))
    with OpenEXR.File(str(path), separate_channels=True) as file:
        planes: dict[str, Any] = {key: np.array(channel.pixels) for key, channel in file.channels().items()}
    found = ", ".join(planes) or "none"
    if channels == 3:
        names = next((names for names in _EXR_VECTOR_CHANNELS if set(names) <= set(planes)), None)
        if names is None:
            raise InputError(f"{path} has neither the channels R, G, B nor X, Y, Z; it holds {found}.")
        return np.stack([planes[key] for key in names], axis=-1)
    usual = (key for key in _EXR_DEPTH_CHANNELS if key in planes)
    wanted = name or (next(iter(planes)) if len(planes) == 1 else next(usual, None))
    if wanted is None and all(key in planes and np.array_equal(planes[key], planes["R"]) for key in "RGB"):
        wanted = "R"
    if wanted not in planes:
        asked = f"channel {wanted!r}" if wanted else f"channel among {', '.join(_EXR_DEPTH_CHANNELS)}"
        raise InputError(f"{path} has no {asked}; it holds {found}. Choose one by --array_name.")
    return planes[wanted]


def _require_bounded(header: dict[str, Any], num_parts: int) -> None:
    """Refuse an OpenEXR file of several parts, and one whose header claims more than an array may have."""
    if num_parts != 1:
        raise ValueError(f"it has {num_parts} parts, not one")
    (left, top), (right, bottom) = (map(int, corner) for corner in header["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    if width < 1 or height < 1:
        raise ValueError(f"it has {width}x{height} pixels")
    require_bytes(4 * width * height * len(header["channels"]), MAX_ARRAY_BYTES, "the image")


def _in_image_order(array: Array, channels: int, path: Path) -> Array:
    """Return the array as (H,W) or (H,W,3); accepts a channel axis of the right length first or last."""
    shape = array.shape
    if channels == 1:
        if array.ndim == 3 and 1 in (shape[0], shape[-1]):
            array = array[0] if shape[0] == 1 else array[..., 0]
        if array.ndim == 2 and array.size:
            return array
        raise InputError(f"{path} has the shape {shape}. Depth is one number per pixel: (H, W).")
    if array.ndim == 3 and array.size and 3 in (shape[0], shape[-1]):
        return array if shape[-1] == 3 else array.transpose(1, 2, 0)
    raise InputError(f"{path} has the shape {shape}. Normals are three numbers per pixel: (H, W, 3) or (3, H, W).")
