"""What an HDF5 file from elsewhere may not do."""

import io
import zlib
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from datamodules.untrusted import hdf5_arrays
from datamodules.untrusted.hdf5_arrays import read_hdf5_array
from datamodules.untrusted.hdf5_chunks import read_chunks
from geometry.errors import InputError

SHAPE = (8, 12)
DEPTH = np.arange(96, dtype=np.float32).reshape(SHAPE)


def written(write):
    """Return the bytes of a file that a function has filled."""
    file = io.BytesIO()
    with h5py.File(file, "w") as content:
        write(content)
    return file.getvalue()


def stored(array, **options):
    return written(lambda file: file.create_dataset("dataset", data=array, **options))


def read(data, kind="f", channels=()):
    return read_hdf5_array(data, "dataset", kind, channels)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (3, 5)},
        {"compression": "gzip"},
        {"compression": "gzip", "chunks": (3, 5)},
        {"compression": "gzip", "shuffle": True, "chunks": (8, 7)},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_numbers_in_the_file_are_read_in_every_common_packing(options, dtype):
    array = read(stored(DEPTH.astype(dtype), **options))
    assert array.dtype.isnative and np.array_equal(array, DEPTH)


def test_another_file_of_the_machine_is_never_read(tmp_path):
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["dataset"] = DEPTH
    raw = tmp_path / "secret.raw"
    raw.write_bytes(DEPTH.tobytes())

    def external(file):
        file.create_dataset("dataset", SHAPE, "<f4", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])

    def virtual(file):
        layout = h5py.VirtualLayout(SHAPE, "<f4")
        layout[:] = h5py.VirtualSource(str(secret), "dataset", SHAPE)
        file.create_virtual_dataset("dataset", layout)

    def linked(file):
        file["dataset"] = h5py.ExternalLink(str(secret), "dataset")

    def soft(file):
        file["other"] = DEPTH
        file["dataset"] = h5py.SoftLink("/other")

    for write, message in ((external, "other files"), (virtual, "other files"), (linked, "link"), (soft, "link")):
        with pytest.raises(ValueError, match=message):
            read(written(write))


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.create_group("dataset"),
        lambda file: file.create_dataset("dataset", data="text"),
        lambda file: file.create_dataset("dataset", SHAPE, h5py.vlen_dtype(np.float32)),
        lambda file: file.create_dataset("dataset", SHAPE, h5py.ref_dtype),
        lambda file: file.create_dataset("dataset", data=np.zeros(SHAPE, [("a", "f4"), ("b", "f4")])),
        lambda file: file.create_dataset("dataset", data=DEPTH.astype(int)),
        lambda file: file.create_dataset("dataset", data=DEPTH > 3),
        lambda file: file.create_dataset("dataset", data=DEPTH.astype(np.longdouble)),
        lambda file: file.create_dataset("dataset", data=DEPTH[None]),
        lambda file: file.create_dataset("dataset", data=DEPTH[:0]),
        lambda file: file.create_dataset("dataset", data=h5py.Empty("f4")),
        lambda file: file.create_dataset("other", data=DEPTH),
    ],
)
def test_what_is_no_image_of_numbers_of_the_expected_kind_is_refused(write):
    with pytest.raises(ValueError, match=r"expected floating-point numbers|no array|missing"):
        read(written(write))


def test_numbers_that_are_claimed_but_not_there_are_not_zeros():
    with pytest.raises(ValueError, match="not in the file"):
        read(written(lambda file: file.create_dataset("dataset", SHAPE, "f4")))

    def partly(file):
        file.create_dataset("dataset", SHAPE, "f4", chunks=(4, 12))[:4] = DEPTH[:4]

    with pytest.raises(ValueError, match="1 of its 2 chunks"):
        read(written(partly))


def test_a_claim_of_gigabytes_is_refused_before_memory_is_taken():
    for shape, chunks in (((40_000, 40_000), (1000, 1000)), ((40_000, 40_000), None)):
        with pytest.raises(InputError, match="6104 MiB; more than"):
            read(written(lambda file, s=shape, c=chunks: file.create_dataset("dataset", s, "f4", chunks=c)))
    with pytest.raises(InputError, match="a chunk of the array has"):
        read(
            written(
                lambda file: file.create_dataset("dataset", SHAPE, "f4", chunks=(2**14, 2**14), maxshape=(None, None))
            )
        )


def test_a_chunk_that_unpacks_to_more_than_its_numbers_is_refused(monkeypatch):
    def bomb(file):
        array = file.create_dataset("dataset", SHAPE, "f4", chunks=SHAPE, compression="gzip")
        array.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 20)))

    monkeypatch.setattr(hdf5_arrays, "_DEFLATE_RATIO", 1 << 30)  # as if the chunk were large enough to do harm
    with pytest.raises(ValueError, match="unpacks to more than its numbers"):
        read(written(bomb))
    assert np.array_equal(read(stored(DEPTH, compression="gzip", fletcher32=True)), DEPTH)


def test_a_filter_that_the_library_would_have_to_load_is_refused():
    with pytest.raises(ValueError, match="filter 32000"):
        read(stored(DEPTH, compression="lzf"))


def opened(data):
    return h5py.File(io.BytesIO(data))["dataset"]


def test_what_is_packed_as_usual_is_inflated_chunk_by_chunk():
    colour = np.random.default_rng(0).random((8, 12, 3)).astype(np.float16)
    for options in ({"chunks": (3, 5, 1)}, {"chunks": (8, 12, 3), "shuffle": True}):
        data = stored(colour, compression="gzip", **options)
        assert np.array_equal(read_chunks(data, opened(data)), colour)


def test_what_is_packed_or_numbered_otherwise_is_left_to_the_library():
    """A number of 32 bits may have 11 of exponent: its bytes are not NumPy's, but h5py converts it."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    kind.set_ebias(1023)

    def odd(file):
        settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings.set_chunk(SHAPE)
        settings.set_deflate(4)
        made = h5py.h5d.create(file.id, b"dataset", kind, h5py.h5s.create_simple(SHAPE), settings)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, DEPTH)

    def unfiltered(file):
        array = file.create_dataset("dataset", SHAPE, "f4", chunks=SHAPE, compression="gzip")
        array.id.write_direct_chunk((0, 0), DEPTH.tobytes(), filter_mask=1)

    behind_text = io.BytesIO()
    with h5py.File(behind_text, "w", userblock_size=512) as file:
        file.create_dataset("dataset", data=DEPTH, compression="gzip")
    for data in (
        written(odd),
        written(unfiltered),
        behind_text.getvalue(),
        stored(DEPTH),
        stored(DEPTH, chunks=(3, 5)),
    ):
        assert read_chunks(data, opened(data)) is None
        assert np.array_equal(read(data), DEPTH)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (zlib.compress(DEPTH.tobytes())[:-2], "ends early"),
        (zlib.compress(DEPTH.tobytes())[:-1] + b"\0", "damaged"),
        (zlib.compress(DEPTH.tobytes()[:-4]), "ends early"),
        (zlib.compress(DEPTH.tobytes() + b"more"), "more than its numbers"),
        (zlib.compress(bytes(1 << 24)), "more than its numbers"),
        (b"no deflate", "damaged"),
    ],
)
def test_a_chunk_that_is_damaged_or_of_another_size_is_refused(packed, message):
    def damaged(file):
        array = file.create_dataset("dataset", SHAPE, "f4", chunks=SHAPE, compression="gzip")
        array.id.write_direct_chunk((0, 0), packed)

    with pytest.raises(ValueError, match=message):
        read(written(damaged))


def test_the_chunks_of_an_array_must_cover_it():
    """Places that no chunk fills would hold what was in memory before."""
    data = stored(DEPTH, compression="gzip", chunks=(4, 12))
    array = opened(data)

    class Twice:
        """The array, whose list of chunks names the first in the place of all others."""

        def __getattr__(self, name):
            return getattr(array.id, name)

        def chunk_iter(self, note):
            chunks = []
            array.id.chunk_iter(chunks.append)
            for _ in chunks:
                note(chunks[0])

    hostile = SimpleNamespace(
        id=Twice(), dtype=array.dtype, shape=array.shape, chunks=array.chunks, file=SimpleNamespace(userblock_size=0)
    )
    with pytest.raises(ValueError, match="do not cover it"):
        read_chunks(data, hostile)
