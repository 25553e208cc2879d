"""Which files are let in as images."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from geometry.errors import InputError
from geometry.files.images import FORMATS, open_image, require_whole_jpeg, require_whole_png, rgb_of
from geometry.files.limits import MAX_JPEG_SCANS

NOISE = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def encoded(image=NOISE, format_name="JPEG", mode="RGB", **options):
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, format_name, **options)
    return file.getvalue()


def opened(data):
    with open_image(io.BytesIO(data), "photo") as image:
        return rgb_of(image)


def png_claiming(width, height):
    """A valid PNG of that size whose rows are all there, each a few bytes: a bomb."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 4}], ids=str
)
@pytest.mark.parametrize("size", [512, 4096])
def test_a_jpeg_with_a_bad_sector_is_refused_however_it_was_written(options, size):
    data = bytearray(encoded(quality=95, **options))
    opened(data)
    middle = len(data) // 2
    data[middle : middle + size] = bytes(size)
    with pytest.raises(InputError, match="photo is a damaged JPEG"):
        opened(data)


def test_a_jpeg_that_is_cut_off_near_its_end_is_refused():
    with pytest.raises(InputError, match="photo is a damaged JPEG"):
        opened(encoded()[:-20])


@pytest.mark.parametrize("mode", ["L", "CMYK", "YCbCr"])
def test_whole_jpegs_of_every_kind_are_let_in(mode):
    assert opened(encoded(mode=mode, quality=90)).shape == NOISE.shape
    assert opened(encoded(mode=mode, quality=90) + b"what cameras write behind an image").shape == NOISE.shape


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_takes_minutes():
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    with pytest.raises(InputError, match="scans"):
        require_whole_jpeg(encoded()[:-2] + scan * (MAX_JPEG_SCANS + 1) + b"\xff\xd9")


def test_phones_images_with_more_images_behind_them_are_let_in():
    phone = encoded(format_name="MPO", save_all=True, append_images=[Image.fromarray(NOISE[::-1])])
    assert np.array_equal(opened(phone), opened(encoded()))


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n", b"%PDF-1.4\n"]
)
def test_no_other_program_is_started_for_an_image(tmp_path, monkeypatch, content):
    stand_in = tmp_path / "gs"
    stand_in.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 10.0 && exit 0\ntouch {tmp_path}/started\n')
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "photo.jpg").write_bytes(content)
    with pytest.raises(InputError, match="no image of a known kind"), open_image(tmp_path / "photo.jpg") as image:
        image.load()
    assert not (tmp_path / "started").exists()


def test_formats_that_start_programs_or_fetch_files_are_not_among_ours():
    assert not {"EPS", "WMF", "FPX", "MIC", "GRIB", "BUFR", "HDF5", "FITS", "MPEG"} & set(FORMATS)


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "JPEG2000", "AVIF", "TGA"])
def test_common_formats_are_let_in(format_name):
    assert opened(encoded(format_name=format_name)).shape == NOISE.shape


@pytest.mark.parametrize("pillows_limit", [Image.MAX_IMAGE_PIXELS, None])
def test_a_blank_image_of_900_megapixels_is_refused_before_it_is_decoded(monkeypatch, pillows_limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    with pytest.raises(InputError, match="photo has more than 178 megapixels"):
        opened(png_claiming(30_000, 30_000))


def test_a_device_and_a_pipe_are_no_images(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "zero.png")
    for name in ("pipe.png", "zero.png"):
        with pytest.raises(InputError, match=rf"{name}: this is no regular file"), open_image(tmp_path / name):
            pass


def test_a_png_whose_chunk_claims_gigabytes_is_refused_before_a_decoder_reserves_them():
    data = bytearray(encoded(format_name="PNG"))
    require_whole_png(bytes(data) + b"behind the end")
    at = data.index(b"IDAT") - 4
    data[at : at + 4] = (2**31 - 1).to_bytes(4)
    with pytest.raises(InputError, match="photo is no complete PNG"):
        require_whole_png(bytes(data), "photo")
    with pytest.raises(InputError, match="photo is no complete PNG"):
        require_whole_png(encoded(format_name="PNG")[:-5], "photo")
