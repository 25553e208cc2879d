"""Chunks of an HDF5 array, inflated by isa-l: the same numbers as h5py's, in half of the time or less.

Only what is packed as usual is read here (deflate, perhaps after shuffling); anything else is h5py's.
"""

import itertools
from typing import Any, NamedTuple

import h5py
import numpy as np
from isal import isal_zlib

Array = np.ndarray

_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
# The library's own types call it an instance.
_DAMAGED: Any = isal_zlib.error


class _Chunk(NamedTuple):
    """Where a chunk's numbers belong, and where its bytes are in the file."""

    corner: tuple[int, ...]
    start: int
    num_bytes: int


def read_chunks(data: bytes, array: h5py.Dataset) -> Array | None:
    """Return the numbers of an array, in its own type and order of bytes.

    Args:
        data: bytes of the file.
        array: the array in it, which claims no more than it may.

    Returns:
        The numbers; None if they are packed in another way, in which case h5py is to read them.

    Raises:
        ValueError: a chunk is damaged, missing or of another size than its numbers have.
    """
    filters = _filters(array)
    if array.chunks is None or filters not in ([_DEFLATE], [_SHUFFLE, _DEFLATE]) or not _is_stored_as_read(array):
        return None
    chunks = _find_chunks(array)
    if chunks is None:
        return None
    values = np.empty(array.shape, array.dtype)
    for chunk in chunks:
        numbers = _inflate(data[chunk.start : chunk.start + chunk.num_bytes], array, _SHUFFLE in filters)
        place = tuple(
            slice(corner, min(corner + side, whole))
            for corner, side, whole in zip(chunk.corner, array.chunks, array.shape, strict=True)
        )
        values[place] = numbers[tuple(slice(part.stop - part.start) for part in place)]
    return values


def _filters(array: h5py.Dataset) -> list[int]:
    settings = array.id.get_create_plist()
    return [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]


def _is_stored_as_read(array: h5py.Dataset) -> bool:
    """Whether the file holds numbers of NumPy's type as NumPy does, at the places that the library names."""
    return array.id.get_type().equal(h5py.h5t.py_create(array.dtype)) and array.file.userblock_size == 0


def _find_chunks(array: h5py.Dataset) -> list[_Chunk] | None:
    """Return all chunks; None if some filter was left out for one of them.

    Raises:
        ValueError: one is missing, or is there twice.
    """
    found: dict[tuple[int, ...], _Chunk] = {}
    masks: set[int] = set()

    def note(chunk: h5py.h5d.StoreInfo) -> None:
        found[chunk.chunk_offset] = _Chunk(chunk.chunk_offset, chunk.byte_offset, chunk.size)
        masks.add(chunk.filter_mask)

    array.id.chunk_iter(note)
    corners = itertools.product(*(range(0, whole, side) for whole, side in zip(array.shape, array.chunks, strict=True)))
    if found.keys() != set(corners):
        raise ValueError("its chunks do not cover it")
    return None if masks != {0} else list(found.values())


def _inflate(data: bytes, array: h5py.Dataset, is_shuffled: bool) -> Array:
    """Return the numbers of a chunk, in its shape; never unpacks more than they are."""
    item, count = array.dtype.itemsize, int(np.prod(array.chunks))
    stream = isal_zlib.decompressobj()
    try:
        unpacked = stream.decompress(data, item * count + 1)
    except _DAMAGED as error:
        raise ValueError(f"a chunk is damaged: {error}") from error
    if len(unpacked) > item * count:
        raise ValueError("a chunk unpacks to more than its numbers")
    if len(unpacked) < item * count or not stream.eof:
        raise ValueError("a chunk is damaged: it ends early")
    if is_shuffled:
        unpacked = np.frombuffer(unpacked, np.uint8).reshape(item, count).T.tobytes()
    return np.frombuffer(unpacked, array.dtype).reshape(array.chunks)
