"""What a .npy or .npz file may claim."""

import io
import zipfile

import numpy as np
import pytest

from datamodules.sources.array_files import read_array_file
from geometry.errors import InputError
from geometry.files.npy_arrays import decode_npy


def npy(header, data=b""):
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


def claiming(shape, descr="<f4", order="False"):
    return npy(f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}}}", bytes(48))


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<u2", ">i4", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back_as_they_were_stored(dtype, order):
    array = np.asarray(np.arange(12).reshape(3, 4), dtype=dtype, order=order)
    read = decode_npy(saved(array))
    assert np.array_equal(read, array) and read.dtype.isnative


@pytest.mark.parametrize("shape", ["(100000000000000000000,)", "(40000, 40000)", "(2147483648, 2147483648, 4)"])
def test_a_claim_beyond_the_limit_is_refused_before_memory_is_taken(shape):
    with pytest.raises(InputError, match="claims the shape"):
        decode_npy(claiming(shape))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (claiming("(True, 12)"), "shape"),
        (claiming("(-3, -4)"), "shape"),
        (claiming("(1,) * 3"), "header"),
        (claiming("(1, 1, 1, 1, 1, 1, 1, 1, 1, 12)"), "shape"),
        (claiming("(3, 5)"), "60 bytes of numbers are announced, 48 are there"),
        (claiming("(3, 4)", "|O"), "nothing is unpickled"),
        (claiming("(3, 4)", "<U5"), "nothing is unpickled"),
        (claiming("(3, 4)", "<c8"), "nothing is unpickled"),
        (claiming("(3, 4)", "nonsense"), "header"),
        (npy("(" * 100), "header"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "header"),
        (b"\x93NUMPY\x07\x00", "format 7"),
        (b"", "magic"),
    ],
)
def test_a_header_that_lies_is_an_error_that_says_how(data, message):
    with pytest.raises(ValueError, match=message):
        decode_npy(data)


def test_a_npz_that_would_unpack_to_gigabytes_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("depth.npy", "w", force_zip64=True) as member:
            for _ in range(60):
                member.write(bytes(8 << 20))
    with pytest.raises(InputError, match=r"a\.npz cannot be read \(depth\.npy has 480 MiB; more than"):
        read_array_file(tmp_path / "a.npz", 1)


def test_an_encrypted_or_damaged_member_is_named(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", depth=np.random.default_rng(0).random((30, 40)))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    for flags in (data.find(b"PK\x03\x04") + 6, data.find(b"PK\x01\x02") + 8):
        data[flags] |= 1
    (tmp_path / "b.npz").write_bytes(data)
    damaged = bytearray((tmp_path / "a.npz").read_bytes())
    damaged[200:400] = bytes(200)
    (tmp_path / "c.npz").write_bytes(damaged)
    for name in ("b", "c"):
        with pytest.raises(InputError, match=rf"{name}\.npz cannot be read \(depth\.npy"):
            read_array_file(tmp_path / f"{name}.npz", 1)
