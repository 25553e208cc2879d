"""Arrays in NumPy's own formats, .npy and .npz: never unpickled, and never larger than they may be."""

import io
import math
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from geometry.errors import InputError
from geometry.files import require_bytes
from geometry.limits import MAX_ARRAY_BYTES

Array = np.ndarray
_HEADER_BYTES = 16_384
_MAX_AXES = 8


def decode_npy(data: bytes, max_bytes: int = MAX_ARRAY_BYTES) -> Array:
    """Return the numbers or truth values in the bytes of a .npy file.

    Args:
        data: bytes of the file.
        max_bytes: largest size of the array.

    Returns:
        Array in the stored shape and type, in the order of bytes of this machine; read-only where nothing was copied.

    Raises:
        InputError: it claims more than ``max_bytes``.
        ValueError: the bytes are no such file, hold something else, or end early.
    """
    file = io.BytesIO(data[:_HEADER_BYTES])
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read_header:
        raise ValueError(f"its format is {version[0]}.{version[1]}, not 1.0 or 2.0")
    shape, is_fortran, dtype = _header(read_header[version], file)
    if dtype.kind not in "uifb" or dtype.itemsize > 8:
        raise ValueError(f"it holds values of type {dtype}, not numbers; nothing is unpickled")
    if len(shape) > _MAX_AXES or any(type(side) is not int or side < 0 for side in shape):
        raise ValueError(f"its shape is {str(shape)[:80]}")
    count = math.prod(shape)
    require_bytes(count * dtype.itemsize, max_bytes, "the array")
    if len(data) - file.tell() < count * dtype.itemsize:
        raise ValueError(
            f"{count * dtype.itemsize} bytes of numbers are announced, {len(data) - file.tell()} are there"
        )
    array = np.frombuffer(data, dtype, count, file.tell()).reshape(shape, order="F" if is_fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_npz_member(archive: zipfile.ZipFile, name: str, max_bytes: int = MAX_ARRAY_BYTES) -> Array:
    """Return an array of a .npz file.

    Args:
        archive: the file.
        name: the array.
        max_bytes: largest size of the array.

    Raises:
        InputError: it claims more than ``max_bytes``, or unpacks to more.
        ValueError: it is damaged, or no array of numbers.
    """
    return decode_npy(read_zip_member(archive, f"{name}.npy", max_bytes + _HEADER_BYTES), max_bytes)


def read_zip_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Return a file of an archive, unpacked to a bounded size.

    Args:
        archive: the archive.
        name: the file's path in it.
        max_bytes: largest size, unpacked.

    Raises:
        InputError: it claims more than ``max_bytes``, or unpacks to more.
        OSError: it is damaged, encrypted or packed in an unknown way.
    """
    info = archive.getinfo(name)
    require_bytes(info.file_size, max_bytes, name)
    try:
        with archive.open(info) as member:
            data = member.read(max_bytes + 1)
    except Exception as error:  # zipfile, zlib, bz2 and lzma each have errors of their own
        raise OSError(f"{name}: {error or type(error).__name__}") from error
    require_bytes(len(data), max_bytes, name)
    return data


def _header(read: Callable[[io.BytesIO], Any], file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether columns come first, and type; NumPy parses a literal of Python there."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(file)
    except InputError:
        raise
    except Exception as error:  # whatever the parser makes of arbitrary text
        raise ValueError(
            f"its header cannot be read ({str(error).splitlines()[0][:200] if str(error) else error!r})"
        ) from error
