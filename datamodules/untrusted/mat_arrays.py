"""Variables in MATLAB's format 5, .mat: unpacked to a bounded size before they are read."""

import io
import struct
import zlib
from typing import Any

from geometry.files.limits import MAX_ARRAY_BYTES

_HEADER_BYTES = 128
_COMPRESSED = 15


def decode_mat(data: bytes, max_bytes: int = MAX_ARRAY_BYTES) -> dict[str, Any]:
    """Return the variables in the bytes of a .mat file of version 5 to 7.2, by name.

    Args:
        data: bytes of the file, as MATLAB on a PC writes them.
        max_bytes: largest size of all variables, unpacked.

    Raises:
        ValueError: the bytes are no such file, damaged, or unpack to more than ``max_bytes``.
    """
    from scipy.io import loadmat

    if data[126:128] != b"IM":
        raise ValueError("it is no .mat file of version 5 to 7.2")
    try:
        return loadmat(io.BytesIO(_unpacked(data, max_bytes)), struct_as_record=True, chars_as_strings=True)
    except Exception as error:  # scipy has no error of its own for damaged files
        raise ValueError(f"it cannot be read as a .mat file ({error or type(error).__name__})") from error


def _unpacked(data: bytes, max_bytes: int) -> bytes:
    """Return the file with its compressed variables unpacked."""
    parts, at, total = [data[:_HEADER_BYTES]], _HEADER_BYTES, 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + size]
        if len(body) < size:
            raise ValueError("it ends early")
        if kind == _COMPRESSED:
            part = zlib.decompressobj().decompress(body, max_bytes + 1)
        else:
            part = data[at : at + 8 + size]
        total += len(part)
        if total > max_bytes:
            raise ValueError(f"it unpacks to more than {max_bytes} bytes")
        parts.append(part)
        at += 8 + size
    return b"".join(parts)
