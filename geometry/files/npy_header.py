"""Headers of ``.npy`` files: type and shape, before any number is read."""

import io
import math
from dataclasses import dataclass

import numpy as np

from geometry.errors import InputError
from geometry.files.limits import MAX_ARRAY_BYTES, MAX_NPY_HEADER_BYTES


@dataclass(frozen=True)
class NpyHeader:
    """What the header of a ``.npy`` file says.

    Attributes:
        dtype: a plain type of whole or floating-point numbers, or of truth values.
        shape: the shape.
        fortran_order: whether the first axis varies fastest.
        num_bytes: size of the header: where the numbers start.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran_order: bool
    num_bytes: int

    @property
    def num_elements(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)


def read_npy_header(data: bytes, max_bytes: int = MAX_ARRAY_BYTES) -> NpyHeader:
    """Return what the header of a ``.npy`` file says.

    Args:
        data: the file, or its first ``MAX_NPY_HEADER_BYTES + 16`` bytes at least.
        max_bytes: largest size of the numbers.

    Returns:
        The header, of an array of numbers whose size is within the limit.

    Raises:
        InputError: the bytes are no such file; or its type is no plain one (objects would be unpickled, which never
            happens); or the array is larger.
    """
    file = io.BytesIO(bytes(data[: MAX_NPY_HEADER_BYTES + 16]))
    shape, fortran_order, dtype = _parse(file)
    if dtype.kind not in "biuf" or dtype.names is not None or dtype.subdtype is not None:
        raise InputError(f"the array must hold plain numbers, not {str(dtype)[:60]}; nothing is unpickled")
    # An axis of length 0 must not hide what the others claim: numpy multiplies them all.
    if not all(type(length) is int and 0 <= length <= max_bytes for length in shape) or len(shape) > 8:
        raise InputError(f"the array claims the shape {str(shape)[:60]}")
    if math.prod(max(length, 1) for length in shape) * dtype.itemsize > max_bytes:
        raise InputError(f"the array claims the shape {shape} of {dtype}; more than {max_bytes} bytes are refused")
    return NpyHeader(dtype, shape, fortran_order, file.tell())


def _parse(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype]:
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
        raise InputError(f"the header of the .npy file cannot be read ({_short(error)})") from error


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
