import pickle
import struct

import cv2
import numpy as np
import pytest

from datamodules.sources import array_files
from datamodules.sources.array_files import read_array_file, read_pfm, require_exr_reader
from geometry.errors import InputError

# Every row and column differs, so that a flip or a transposition shows.
DEPTH = (np.arange(12, dtype=np.float32).reshape(3, 4) + 1) * 70.25
VECTORS = np.stack([DEPTH, -DEPTH, DEPTH**2], axis=-1)


def pfm_bytes(array, byte_order="<", header=None):
    scale = b"-1.0" if byte_order == "<" else b"1.0"
    kind = b"PF" if array.ndim == 3 else b"Pf"
    start = header or b"%s\n%d %d\n%s\n" % (kind, array.shape[1], array.shape[0], scale)
    numbers = array[::-1].flatten().tolist()
    return start + struct.pack(f"{byte_order}{len(numbers)}f", *numbers)


def write_exr(path, **channels):
    openexr = pytest.importorskip("OpenEXR", reason="the optional OpenEXR package is not installed")
    header = {"compression": openexr.ZIP_COMPRESSION, "type": openexr.scanlineimage}
    openexr.File(header, channels).write(str(path))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("array", [DEPTH, VECTORS], ids=["one channel", "three"])
def test_a_pfm_file_keeps_its_values_and_its_top_row(order, array):
    np.testing.assert_array_equal(read_pfm(pfm_bytes(array, order)), array)


def test_a_pfm_header_may_stand_on_one_line():
    data = pfm_bytes(DEPTH, header=b"Pf 4 3 -1\n")
    np.testing.assert_array_equal(read_pfm(data), DEPTH)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pfm_bytes(DEPTH)[:-1], "48 bytes of numbers are announced, 47"),
        (b"Pf\n4 3", "header"),
        (b"P5\n4 3\n255\n", "begins with PF or Pf"),
        (b"Pf\n4 -3\n-1\n", "width, height and scale"),
        (b"Pf\n4 3\n0\n", "width, height and scale"),
        (b"Pf\nfour 3\n-1\n", "four"),
    ],
)
def test_a_broken_pfm_file_is_named(tmp_path, data, message):
    path = tmp_path / "a.pfm"
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"a\.pfm cannot be read.*{message}"):
        read_array_file(path, 1)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16, np.int32])
def test_a_npy_file_keeps_type_and_values(tmp_path, dtype):
    np.save(tmp_path / "a.npy", DEPTH.astype(dtype))
    read = read_array_file(tmp_path / "a.npy", 1)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, DEPTH.astype(dtype))


@pytest.mark.parametrize("shape", [(3, 4, 1), (1, 3, 4)])
def test_depth_may_carry_an_axis_of_one(tmp_path, shape):
    np.save(tmp_path / "a.npy", DEPTH.reshape(shape))
    np.testing.assert_array_equal(read_array_file(tmp_path / "a.npy", 1), DEPTH)


def test_vectors_may_have_their_axis_first_or_last(tmp_path):
    for name, array in (("first", VECTORS.transpose(2, 0, 1)), ("last", VECTORS)):
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(read_array_file(tmp_path / f"{name}.npy", 3), VECTORS)


@pytest.mark.parametrize(("channels", "array"), [(1, VECTORS), (3, DEPTH), (1, DEPTH[0])])
def test_an_array_of_another_shape_is_refused(tmp_path, channels, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=r"a\.npy has the shape"):
        read_array_file(tmp_path / "a.npy", channels)


def test_the_sole_array_of_a_npz_file_is_taken_whatever_its_name(tmp_path):
    np.savez(tmp_path / "a.npz", anything=DEPTH)
    np.testing.assert_array_equal(read_array_file(tmp_path / "a.npz", 1), DEPTH)


def test_one_of_several_arrays_is_taken_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", depth=DEPTH, other=2 * DEPTH)
    np.testing.assert_array_equal(read_array_file(tmp_path / "a.npz", 1), DEPTH)
    np.testing.assert_array_equal(read_array_file(tmp_path / "a.npz", 1, "other"), 2 * DEPTH)
    with pytest.raises(InputError, match=r"no array 'normals'; it holds depth, other.*--array_name"):
        read_array_file(tmp_path / "a.npz", 3)


def test_a_pickle_is_never_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object))
    np.savez(tmp_path / "b.npz", depth=np.array([{"a": 1}], dtype=object))
    (tmp_path / "c.npy").write_bytes(pickle.dumps(1))
    for name in ("a.npy", "b.npz", "c.npy"):
        with pytest.raises(InputError, match=f"{name} cannot be read"):
            read_array_file(tmp_path / name, 1)


def test_a_16_bit_png_keeps_its_values(tmp_path):
    stored = np.array([[0, 1, 256], [4095, 40000, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    np.testing.assert_array_equal(read_array_file(tmp_path / "a.png", 1), stored)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_channels_of_a_png_are_red_green_blue(tmp_path, dtype):
    rgb = np.array([[[1, 2, 3], [200, 100, 0]]], dtype)
    cv2.imwrite(str(tmp_path / "a.png"), rgb[..., ::-1])
    read = read_array_file(tmp_path / "a.png", 3)
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, rgb)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 3)])
def test_an_image_of_depth_is_not_taken_for_depth(tmp_path, shape):
    cv2.imwrite(str(tmp_path / "a.png"), np.ones(shape, np.uint8))
    with pytest.raises(InputError, match=r"8 bits.*16-bit grey PNG"):
        read_array_file(tmp_path / "a.png", 1)


@pytest.mark.parametrize("channel", ["Z", "Y", "distance"])
def test_the_depth_channel_of_an_exr_file_is_found(tmp_path, channel):
    write_exr(tmp_path / "a.exr", **{channel: DEPTH})
    np.testing.assert_array_equal(read_array_file(tmp_path / "a.exr", 1), DEPTH)


def test_an_exr_file_with_equal_colours_is_depth_and_with_others_needs_a_name(tmp_path):
    write_exr(tmp_path / "a.exr", RGB=np.repeat(DEPTH[..., None], 3, axis=-1))
    np.testing.assert_array_equal(read_array_file(tmp_path / "a.exr", 1), DEPTH)
    write_exr(tmp_path / "b.exr", RGB=VECTORS)
    with pytest.raises(InputError, match=r"b\.exr has no channel among Z, depth.*--array_name"):
        read_array_file(tmp_path / "b.exr", 1)
    np.testing.assert_array_equal(read_array_file(tmp_path / "b.exr", 1, "G"), -DEPTH)


def test_the_vectors_of_an_exr_file_are_red_green_blue(tmp_path):
    write_exr(tmp_path / "a.exr", RGB=VECTORS)
    np.testing.assert_array_equal(read_array_file(tmp_path / "a.exr", 3), VECTORS)


def test_without_the_exr_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(array_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install .*\[exr\]"):
        require_exr_reader()


@pytest.mark.parametrize("name", ["a.png", "a.npy", "a.npz", "a.pfm", "a.exr"])
def test_rubbish_and_absence_are_named(tmp_path, name):
    if name.endswith(".exr"):
        pytest.importorskip("OpenEXR", reason="the optional OpenEXR package is not installed")
    with pytest.raises(InputError, match=f"{name} is missing"):
        read_array_file(tmp_path / name, 1)
    (tmp_path / name).write_bytes(b"this is no such file")
    with pytest.raises(InputError, match=f"{name} cannot be read"):
        read_array_file(tmp_path / name, 1)


def test_another_format_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"a\.tif is none of \.png"):
        read_array_file(tmp_path / "a.tif", 1)
