"""Arrays in NumPy's own formats, .npy and .npz: never unpickled, and never larger than they may be."""

import zipfile
from pathlib import Path

import numpy as np

from geometry.errors import InputError
from geometry.files.limits import MAX_ARRAY_BYTES, MIB
from geometry.files.npy_header import read_npy_header
from geometry.files.reading import read_regular_file
from geometry.files.zip_archives import read_zip_member

Array = np.ndarray


def decode_npy(data: bytes, max_bytes: int = MAX_ARRAY_BYTES) -> Array:
    """Return the numbers or truth values in the bytes of a .npy file.

    Args:
        data: bytes of the file.
        max_bytes: largest size of the array.

    Returns:
        Array in the stored shape and type, in the order of bytes of this machine; read-only where nothing was copied.

    Raises:
        InputError: the bytes are no such file, hold something else, or claim more than ``max_bytes``.
        ValueError: they end early.
    """
    header = read_npy_header(data, max_bytes)
    there, wanted = len(data) - header.num_bytes, header.num_elements * header.dtype.itemsize
    if there < wanted:
        raise ValueError(f"{wanted} bytes of numbers are announced, {there} are there")
    numbers = np.frombuffer(data, header.dtype, header.num_elements, header.num_bytes)
    array = numbers.reshape(header.shape, order="F" if header.fortran_order else "C")
    return array.astype(header.dtype.newbyteorder("="), copy=False)


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
        InputError: it is no array of numbers, or claims or unpacks to more than ``max_bytes``.
        OSError: it is damaged.
        ValueError: it ends early.
    """
    return decode_npy(read_zip_member(archive, f"{name}.npy", max_bytes + MIB), max_bytes)
