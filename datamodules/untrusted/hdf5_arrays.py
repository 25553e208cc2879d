"""Arrays in HDF5 files from elsewhere: only what lies in the file itself, and never more than it may be.

An HDF5 file can take its numbers from other files of the machine (external storage, virtual data sets, external links),
load filters, and claim or unpack to any size. All of that is refused before a number is read.
"""

import io
import math
import zlib

import h5py
import numpy as np

from datamodules.untrusted.hdf5_chunks import read_chunks
from geometry.files.limits import MAX_ARRAY_BYTES
from geometry.files.reading import require_bytes

Array = np.ndarray

_OWN_LAYOUTS = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)
_DEFLATE = h5py.h5z.FILTER_DEFLATE
_FILTERS = {_DEFLATE: "deflate", h5py.h5z.FILTER_SHUFFLE: "shuffle", h5py.h5z.FILTER_FLETCHER32: "fletcher32"}
# Deflate never packs more bytes into one.
_DEFLATE_RATIO = 1032


def read_hdf5_array(data: bytes, name: str, kind: str, channels: tuple[int, ...]) -> Array:
    """Return one array of pixels of an HDF5 file.

    Args:
        data: bytes of the file.
        name: the array, at the top of the file.
        kind: NumPy's letter for the kind of numbers: "f" or "i".
        channels: what the shape has behind height and width.

    Returns:
        (H,W,*channels), in the order of bytes of this machine.

    Raises:
        InputError: the array claims, or would unpack to, more than ``MAX_ARRAY_BYTES``.
        ValueError: there is no such array, its numbers lie elsewhere or are missing, or are of another kind or shape.
        OSError: the file is damaged.
    """
    with h5py.File(io.BytesIO(data), "r") as file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is missing in it, or a link")
        array = file[name]
        if not isinstance(array, h5py.Dataset):
            raise ValueError(f"{name!r} is no array")
        _require_own_storage(array)
        _require_kind(array, kind, channels)
        _require_bounded(array)
        values = read_chunks(data, array)
        if values is None:
            values = array[()]
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _require_own_storage(array: h5py.Dataset) -> None:
    settings = array.id.get_create_plist()
    if settings.get_external_count() or settings.get_layout() not in _OWN_LAYOUTS:
        raise ValueError("its numbers lie in other files; nothing but the file itself is read")
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    unknown = [number for number in filters if number not in _FILTERS]
    if unknown:
        raise ValueError(f"it is packed by filter {unknown[0]}; only {', '.join(_FILTERS.values())} are read")
    if filters.count(_DEFLATE) > 1:
        raise ValueError("it is packed twice")


def _require_kind(array: h5py.Dataset, kind: str, channels: tuple[int, ...]) -> None:
    shape, dtype = array.shape, array.dtype
    has_shape = shape is not None and len(shape) == 2 + len(channels) and shape[2:] == channels and 0 not in shape
    if not (has_shape and dtype.kind == kind and dtype.itemsize <= 8):
        words = "integers" if kind == "i" else "floating-point numbers"
        raise ValueError(f"it holds {dtype} of shape {shape}, expected {words} of shape {('H', 'W', *channels)}")


def _require_bounded(array: h5py.Dataset) -> None:
    """Refuse what claims too much, lacks a part, or has a chunk that would unpack to too much."""
    require_bytes(math.prod(array.shape) * array.dtype.itemsize, MAX_ARRAY_BYTES, "the array")
    if array.chunks is None:
        if array.id.get_storage_size() < array.nbytes:
            raise ValueError("its numbers are not in the file")
        return
    chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    require_bytes(chunk_bytes, MAX_ARRAY_BYTES, "a chunk of the array")
    wanted = math.prod(-(-side // chunk) for side, chunk in zip(array.shape, array.chunks, strict=True))
    if array.id.get_num_chunks() != wanted:
        raise ValueError(f"{array.id.get_num_chunks()} of its {wanted} chunks are in the file")
    large: list[tuple[int, ...]] = []
    array.id.chunk_iter(
        lambda chunk: large.append(chunk.chunk_offset) if chunk.size * _DEFLATE_RATIO > MAX_ARRAY_BYTES else None
    )
    for offset in large:
        _require_bounded_chunk(array, offset, chunk_bytes)


def _require_bounded_chunk(array: h5py.Dataset, offset: tuple[int, ...], chunk_bytes: int) -> None:
    """Refuse a chunk that unpacks to more than its numbers and a checksum; the library would go on to the end."""
    _, data = array.id.read_direct_chunk(offset)
    if array.compression != "gzip":
        require_bytes(len(data), 2 * MAX_ARRAY_BYTES, "a chunk of the array")
        return
    try:
        unpacked = len(zlib.decompressobj().decompress(data, chunk_bytes + 5))
    except zlib.error as error:
        raise ValueError(f"a chunk is damaged: {error}") from error
    if unpacked > chunk_bytes + 4:
        raise ValueError("a chunk unpacks to more than its numbers")
