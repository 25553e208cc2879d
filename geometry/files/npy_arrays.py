"""Arrays in NumPy's own formats, .npy and .npz: never unpickled, and never larger than they may be."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np

from geometry.errors import InputError, one_line
from geometry.files.limits import MAX_ARRAY_BYTES, MAX_NPY_HEADER_BYTES, MIB
from geometry.files.reading import read_regular_file
from geometry.files.zip_archives import read_zip_member

Array = np.ndarray


def decode_npy(data: bytes | Array, max_bytes: int = MAX_ARRAY_BYTES, only: np.dtype | None = None) -> Array:
    """Return the numbers or truth values in the bytes of a .npy file.

    Args:
        data: bytes of the file, or (N,) uint8.
        max_bytes: largest size of the array.
        only: refuse every other type and order of bytes.

    Returns:
        Array in the stored shape and type, in the order of bytes of this machine; where nothing was copied, a view of
        the data, which is read-only for bytes.

    Raises:
        InputError: the bytes are no such file, claim more than ``max_bytes`` or end early; or their type is no plain
            one (objects would be unpickled, which never happens).
    """
    file = io.BytesIO(bytes(data[: MAX_NPY_HEADER_BYTES + 16]))
    shape, fortran_order, dtype = _read_header(file)
    if dtype.kind not in "biuf" or dtype.names is not None or dtype.subdtype is not None:
        raise InputError(f"the array must hold plain numbers, not {str(dtype)[:60]}; nothing is unpickled")
    if only is not None and dtype != only:
        raise InputError(f"the array must hold {only}, not {dtype}")
    # An axis of length 0 must not hide what the others claim: numpy multiplies them all.
    if not all(type(length) is int and 0 <= length <= max_bytes for length in shape) or len(shape) > 8:
        raise InputError(f"the array claims the shape {str(shape)[:60]}")
    if math.prod(max(length, 1) for length in shape) * dtype.itemsize > max_bytes:
        raise InputError(f"the array claims the shape {shape} of {dtype}; more than {max_bytes} bytes are refused")
    there, wanted = len(data) - file.tell(), math.prod(shape) * dtype.itemsize
    if there < wanted:
        raise InputError(f"{wanted} bytes of numbers are announced, {there} are there")
    numbers = np.frombuffer(data, dtype, math.prod(shape), file.tell())
    array = numbers.reshape(shape, order="F" if fortran_order else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def read_npy_file(path: Path, max_bytes: int = MAX_ARRAY_BYTES) -> Array:
    """Return the array in a .npy file.

    Args:
        path: the file; links are followed.
        max_bytes: largest size of the array.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is no regular file, cannot be read, holds something else or is cut off; names it.
    """
    try:
        return decode_npy(read_regular_file(path, max_bytes + MIB), max_bytes)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}.") from error


def read_npz_member(archive: zipfile.ZipFile, name: str, max_bytes: int = MAX_ARRAY_BYTES) -> Array:
    """Return an array of a .npz file.

    Args:
        archive: the file.
        name: the array.
        max_bytes: largest size of the array.

    Raises:
        InputError: it is no array of numbers, ends early, or claims or unpacks to more than ``max_bytes``.
        OSError: it is damaged.
    """
    return decode_npy(read_zip_member(archive, f"{name}.npy", max_bytes + MIB), max_bytes)


def _read_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise InputError(f"the .npy file is of format {version[0]}.{version[1]}; 1.0 and 2.0 are read")
        return readers[version](file, max_header_size=MAX_NPY_HEADER_BYTES)
    except InputError:
        raise
    except Exception as error:
        # NumPy has Python parse the header: a hostile one raises whatever a parser and a type's constructor can.
        raise InputError(
            f"the header of the .npy file cannot be read ({one_line(error, 120) or type(error).__name__})"
        ) from error
