"""Entries of a shard: how images, arrays and descriptions become bytes and come back.

An entry is named ``<key>.<role>.<format>`` (``<key>.json`` for the description). Only the formats listed here are ever
decoded, and the codings that modalities name; nothing is unpickled.
"""

import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import numpy as np
from numcodecs import blosc

from geometry.errors import InputError
from geometry.files import npy_arrays
from geometry.files.images import decode_whole_jpeg, require_whole_jpeg, require_whole_png
from geometry.files.json_text import parse_json
from geometry.files.limits import MAX_ARRAY_BYTES, MAX_JPEG_SCANS
from geometry.modalities import modality_named, registered

IMAGE, INFO = "image", "info"
# What values of modalities are written as, where they are not coded.
ARRAY_FORMAT = "blosc"
# How arrays are compressed, by shard format: the first is smaller, the second decodes three times as fast.
COMPRESSIONS = {1: "zstd", 2: "lz4hc"}
_IMAGE_FORMATS, _ARRAY_FORMATS, _INFO_FORMATS = ("jpg", "png"), ("blosc", "npy"), ("json",)
# EXIF data lies in one of the first segments, of at most 64 KiB each.
_EXIF, _EXIF_WITHIN = b"Exif\0", 1 << 17

# Codes of modalities that are not stored as they are.
CODE_TYPE = np.dtype("<i2")

Array = np.ndarray


def entry_name(role: str, format_name: str) -> str:
    """Return the part of an entry's file name that follows the key and its dot.

    Args:
        role: "image", "info" or the name of a modality.
        format_name: jpg or png for an image, json for the description; blosc, npy or the name of a coding for the
            values of a modality.

    Returns:
        For instance "normals.blosc"; the description ("info") is just "json".
    """
    return format_name if role == INFO else f"{role}.{format_name}"


def entry_roles() -> dict[str, tuple[str, str]]:
    """Return role and format of every entry that a sample may have, by its name."""
    codings = {role: (name,) for role, name in codings_of(registered()).items()}
    values = {role: _ARRAY_FORMATS + codings.get(role, ()) for role in registered()}
    formats = {IMAGE: _IMAGE_FORMATS, **values, INFO: _INFO_FORMATS}
    return {entry_name(role, name): (role, name) for role, names in formats.items() for name in names}


def codings_of(modalities: Iterable[str]) -> dict[str, str]:
    """Return the names of the codings of the modalities that have one."""
    return {name: coding.name for name in modalities if (coding := modality_named(name).coding)}


def encode_image(image: Array, format_name: str = "jpg", quality: int = 95) -> bytes:
    """Return an image file.

    Args:
        image: (H,W,3) uint8, RGB.
        format_name: "jpg" or "png".
        quality: JPEG quality from 1 to 100; PNG is lossless and ignores it.

    Returns:
        The bytes of the file, the same for the same input.
    """
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality] if format_name == "jpg" else []
    encoded, data = cv2.imencode(f".{format_name}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    assert encoded, f"OpenCV could not encode {format_name}"
    return data.tobytes()


def encode_array(array: Array, shard_format: int = 1) -> bytes:
    """Return an array as a ``.npy`` file compressed with Blosc (level 5, bytes shuffled).

    The header of a ``.npy`` file is a multiple of 64 bytes long, so the shuffle stays aligned with the elements.

    Args:
        array: float16, float32 or int16 array of any shape.
        shard_format: compress with zstd (1) or lz4hc (2). Any reader of Blosc decompresses both.

    Returns:
        The compressed bytes, the same for the same input.
    """
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    blosc.use_threads = False
    codec = blosc.Blosc(
        cname=COMPRESSIONS[shard_format], clevel=5, shuffle=blosc.SHUFFLE, typesize=array.dtype.itemsize
    )
    return bytes(codec.encode(file.getvalue()))


def encode_json(value: dict[str, Any]) -> bytes:
    """Return a description as JSON with sorted keys, without NaN or infinity."""
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def check_claim(data: bytes, format_name: str, max_bytes: int) -> None:
    """Refuse an entry that would grow too large when decoded, going by what its header says.

    Args:
        data: bytes of the entry.
        format_name: "jpg", "png", "npy", "json", or what Blosc has compressed: "blosc" and codings.
        max_bytes: largest size when decoded.

    Raises:
        InputError: the entry claims more, or its header cannot be read.
    """
    claims = {"jpg": _jpeg_bytes, "png": _png_bytes, "npy": len, "json": len}
    num_bytes = claims.get(format_name, _blosc_bytes)(data)
    if format_name == "jpg" and data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise InputError(f"the jpg has more than {MAX_JPEG_SCANS} scans")
    if num_bytes > max_bytes:
        raise InputError(f"the {format_name} claims {num_bytes} bytes; more than {max_bytes} are refused")


def _png_bytes(data: bytes) -> int:
    require_whole_png(data)  # OpenCV would reserve what a chunk claims
    return 3 * int.from_bytes(data[16:20]) * int.from_bytes(data[20:24])


def _jpeg_bytes(data: bytes) -> int:
    """Walk along the segments of a JPEG, each a marker and a length, to the one that holds the size."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return 3 * int.from_bytes(data[at + 5 : at + 7]) * int.from_bytes(data[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    raise InputError("the image cannot be decoded: it is no JPEG")


def _blosc_bytes(data: bytes) -> int:
    return int.from_bytes(data[4:8], "little")


def decode_image(data: bytes) -> Array:
    """Return the image in a JPEG or PNG file.

    Args:
        data: bytes of the file.

    Returns:
        (H,W,3) uint8, RGB.

    Raises:
        InputError: the bytes are no image.
    """
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:
        raise InputError(f"the image cannot be decoded ({error.err})") from error
    if image is None:
        raise InputError("the image cannot be decoded")
    return image


def decode_jpeg(data: bytes) -> Array:
    """Return the image in a JPEG file that is not damaged.

    Args:
        data: bytes of the file.

    Returns:
        (H,W,3) uint8, RGB; the pixels of ``decode_image``.

    Raises:
        InputError: the bytes are no JPEG, or blocks of it are damaged.
    """
    if _EXIF in data[:_EXIF_WITHIN]:  # OpenCV turns the image as EXIF data says
        require_whole_jpeg(data, "the image")
        return decode_image(data)
    image = decode_whole_jpeg(data, "the image")
    return decode_image(data) if image is None else image


def decode_npy(data: bytes | Array) -> Array:
    """Return the numbers in a ``.npy`` file.

    Args:
        data: bytes of the file, or (N,) uint8.

    Returns:
        Array of floats, in the stored type and shape; a view of ``data`` if that is an array.

    Raises:
        InputError: the bytes are no ``.npy`` file of floating-point numbers in C order (object arrays are pickles
            and refused), or fewer numbers are there than announced.
    """
    array = npy_arrays.decode_npy(np.frombuffer(bytearray(data), np.uint8) if isinstance(data, bytes) else data)
    if array.dtype.kind != "f":
        raise InputError(f"the array must hold floating-point numbers, not {array.dtype}")
    return _in_c_order(array)


def decode_blosc(data: bytes) -> Array:
    """Return the numbers in a ``.npy`` file that was compressed with Blosc.

    Args:
        data: compressed bytes.

    Returns:
        As ``decode_npy``.

    Raises:
        InputError: the bytes are no Blosc buffer, claim more than ``MAX_ARRAY_BYTES``, or hold no such ``.npy`` file.
    """
    return decode_npy(_decompress(data))


def decode_codes(data: bytes) -> Array:
    """Return the codes in a ``.npy`` file that was compressed with Blosc.

    Args:
        data: compressed bytes.

    Returns:
        Array of int16, in the stored shape.

    Raises:
        InputError: as ``decode_blosc``, but the numbers must be int16.
    """
    return _in_c_order(npy_arrays.decode_npy(_decompress(data), only=CODE_TYPE))


def _in_c_order(array: Array) -> Array:
    if not array.flags.c_contiguous:
        raise InputError("the array must be in C order")
    return array


def _decompress(data: bytes) -> Array:
    # Header of a Blosc buffer: 4 bytes of versions and flags, then the sizes uncompressed, of a block and compressed.
    if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):
        raise InputError("the array is not a complete Blosc buffer")
    num_bytes = int.from_bytes(data[4:8], "little")
    if num_bytes > MAX_ARRAY_BYTES:
        raise InputError(f"the array claims {num_bytes} bytes; more than {MAX_ARRAY_BYTES} are refused")
    blosc.use_threads = False
    buffer = np.empty(num_bytes, np.uint8)
    try:
        blosc.decompress(data, buffer)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the array cannot be decompressed ({error})") from error
    return buffer


def decode_json(data: bytes) -> dict[str, Any]:
    """Return the description in a JSON file.

    Args:
        data: bytes of the file.

    Returns:
        The object that the file holds.

    Raises:
        InputError: the bytes are no JSON object.
    """
    value = parse_json(data)
    if not isinstance(value, dict):
        raise InputError("the JSON holds no object")
    return value


# What is not among them is a coding, which ``decode_codes`` decodes.
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "jpg": decode_jpeg,
    "png": decode_image,
    "npy": decode_npy,
    "blosc": decode_blosc,
    "json": decode_json,
}
