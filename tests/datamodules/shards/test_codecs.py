import io
import pickle
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from datamodules.shards.codecs import (
    DECODERS,
    check_claim,
    decode_blosc,
    decode_image,
    decode_jpeg,
    decode_json,
    decode_npy,
    encode_array,
    encode_image,
)
from geometry.errors import InputError


class Exploding:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def npy_of(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_depth_comes_back_bit_for_bit(dtype):
    depth = np.random.default_rng(0).uniform(0, 70, (37, 53)).astype(dtype)
    restored = decode_blosc(encode_array(depth))
    assert restored.dtype == dtype
    np.testing.assert_array_equal(restored, depth)


def test_shards_stay_small_because_the_shuffle_knows_the_size_of_a_number():
    v, u = np.mgrid[:240, :320]
    noise = np.random.default_rng(0).normal(0, 0.002, v.shape)
    depth = (3 / (0.5 + 0.001 * u + 0.002 * v) + noise).astype(np.float16)
    # 38 % when shuffled as bytes, 33 % as pairs of bytes.
    assert len(encode_array(depth)) < 0.35 * depth.nbytes


def test_own_data_as_plain_npy_is_read():
    depth = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(decode_npy(npy_of(depth)), depth)


def test_an_object_array_is_refused_and_never_unpickled():
    data = npy_of(np.array([Exploding()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="unpickled"):
        decode_npy(data)


def test_no_decoder_accepts_a_pickle():
    for decode in DECODERS.values():
        with pytest.raises(InputError):
            decode(pickle.dumps(Exploding()))


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d[:10], lambda d: b"", lambda d: d[:16] + bytes(len(d) - 16)]
)
def test_a_damaged_array_is_refused(change):
    with pytest.raises(InputError):
        decode_blosc(change(encode_array(np.ones((8, 8), np.float16))))


def test_an_array_that_claims_gigabytes_is_refused_before_memory_is_reserved():
    data = bytearray(encode_array(np.ones((8, 8), np.float16)))
    data[4:8] = (2**31 - 1).to_bytes(4, "little")
    with pytest.raises(InputError, match="claims 2147483647 bytes"):
        decode_blosc(bytes(data))


def test_an_array_that_announces_more_numbers_than_it_has_is_refused():
    with pytest.raises(InputError):
        decode_npy(npy_of(np.ones((4, 4), np.float32))[:-8])


def test_red_stays_red():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 255
    np.testing.assert_array_equal(decode_image(encode_image(image, "png")), image)
    assert decode_image(encode_image(image, "jpg", 95))[4, 4, 0] > 240


def test_a_file_that_is_no_image_is_refused():
    with pytest.raises(InputError, match="image"):
        decode_image(b"not an image")


def npy_with_header(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text.encode() + b"\n" + bytes(64)


def header_text(shape="1, 1", descr="'<f2'"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': ({shape},), }}"


SHAPES = (10**20, 10**400, -1, "True, True", "-" * 3000 + "1", "'a'", 2.0, f"0, {10**30}", "1, " * 500)
TYPES = ("()", "('<f2',)", "'O'", "'<V9999999999'", "[('a', '<f2')]", "'<f2', 'x'", "'(99999,99999)<f2'")
LYING_HEADERS = [header_text(shape=shape) for shape in SHAPES] + [header_text(descr=descr) for descr in TYPES]


@pytest.mark.parametrize("text", [*LYING_HEADERS, "{'descr': ((('<f2'", "(" * 3000, "", "\x00"])
def test_a_header_of_npy_that_lies_is_refused(text):
    with pytest.raises(InputError):
        decode_npy(npy_with_header(text))


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded():
    data = encode_image(np.zeros((8, 8, 3), np.uint8), "jpg")
    check_claim(data, "jpg", 1000)
    with pytest.raises(InputError, match="scans"):
        check_claim(data[:-2] + b"\xff\xda" * 5000, "jpg", 1000)


@pytest.mark.parametrize(
    "data", [b"[" * 200_000, b'{"a": ' * 100_000, b"{" + b" " * (1 << 20) + b"}", b"\xff{}", b"[]"]
)
def test_json_that_is_deep_long_or_no_object_is_refused(data):
    with pytest.raises(InputError):
        decode_json(data)


def test_a_chunk_of_a_png_that_claims_gigabytes_is_refused_before_it_is_decoded():
    data = encode_image(np.zeros((8, 8, 3), np.uint8), "png")
    check_claim(data, "png", 1000)
    with pytest.raises(InputError, match="PNG"):
        check_claim(data[:33] + (2**31 - 1).to_bytes(4) + data[37:], "png", 1000)


def photo(height, width):
    """Return smooth colours with noise, (H,W,3) uint8."""
    generator = np.random.default_rng(height)
    smooth = np.stack(np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height)), axis=-1) @ np.ones((2, 3))
    return (90 * smooth + generator.uniform(0, 60, (height, width, 3))).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (48, 64), (33, 130)])
@pytest.mark.parametrize("quality", [5, 75, 95, 100])
@pytest.mark.parametrize("sampling", [0x111111, 0x211111, 0x221111])
def test_strict_decoding_gives_the_bits_of_opencv(size, quality, sampling):
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    for progressive in (0, 1):
        data = cv2.imencode(".jpg", photo(*size), [*options, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
        np.testing.assert_array_equal(decode_jpeg(data), decode_image(data))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_jpegs_are_read_as_before(mode):
    file = io.BytesIO()
    Image.fromarray(photo(24, 32)).convert(mode).save(file, "JPEG")
    np.testing.assert_array_equal(decode_jpeg(file.getvalue()), decode_image(file.getvalue()))


def test_a_jpeg_that_says_how_it_is_turned_is_turned_as_before():
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(24, 32)).save(file, "JPEG", exif=exif)
    assert decode_jpeg(file.getvalue()).shape == (32, 24, 3)
    with pytest.raises(InputError, match="damaged JPEG"):
        decode_jpeg(file.getvalue()[:-200])


def test_a_jpeg_with_damaged_blocks_is_no_grey_picture():
    data = bytearray(encode_image(photo(64, 96), "jpg", 95))
    data[len(data) // 2 : len(data) // 2 + 200] = bytes(200)
    assert decode_image(bytes(data)).shape == (64, 96, 3), "OpenCV takes it without a word"
    with pytest.raises(InputError, match="damaged JPEG"):
        DECODERS["jpg"](bytes(data))
