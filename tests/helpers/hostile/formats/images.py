"""Images for ``predict``, the web page and ``prepare folder``."""

import io
import random
import zlib
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from datamodules.sources import image_files
from datamodules.sources.folder_frames import IMAGE_SUFFIXES
from lightning_modules.inference.image_inputs import read_image
from tests.helpers.hostile.formats import Format, assert_finite

_KINDS = {
    "JPEG": (
        ".jpg",
        (
            {},
            {"progressive": True},
            {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
        ),
    ),
    "PNG": (".png", ({}, {"pnginfo": None})),
    "WEBP": (".webp", ({}, {"lossless": True})),
    "TIFF": (".tif", ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "packbits"})),
    "GIF": (".gif", ({}, {"save_all": True, "append_images": [Image.new("P", (24, 16), 3)] * 3})),
    "BMP": (".bmp", ({},)),
    "PPM": (".ppm", ({},)),
    "JPEG2000": (".jp2", ({},)),
    "AVIF": (".avif", ({},)),
    "TGA": (".tga", ({}, {"compression": "tga_rle"})),
}
_MODES = ("RGB", "L", "RGBA", "P", "I;16", "CMYK", "1")


def _image(mode: str) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 200)
    return Image.fromarray(values).convert(mode)


@cache
def _wholes(kind: str) -> Sequence[bytes]:
    found = []
    for mode in _MODES:
        for options in _KINDS[kind][1]:
            file = io.BytesIO()
            try:
                _image(mode).save(file, kind, **options)
            except (OSError, ValueError, KeyError):  # not every format has every mode
                continue
            found.append(file.getvalue())
    return found


def _read(suffix: str, folder: Path, data: bytes) -> None:
    path = folder / f"photo{suffix}"
    path.write_bytes(data)
    for read in (image_files.read_image, read_image) if suffix in IMAGE_SUFFIXES else (read_image,):
        image = read(path)
        assert image.ndim == 3 and image.shape[2] == 3 and image.size, f"accepted with shape {image.shape}"
        assert_finite(image[:64])


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)


def _png_bomb(chance: random.Random) -> bytes:
    """Return a PNG of a few kB that claims millions of pixels, has a huge text, or a huge profile."""
    side = chance.choice((1, 16, 20_000, 13_000, 1 << 31))
    depth, colour = chance.choice(((8, 2), (16, 6), (1, 0), (8, 3)))
    header = (
        side.to_bytes(4) + chance.choice((side, 1)).to_bytes(4) + bytes((depth, colour, 0, 0, chance.choice((0, 1))))
    )
    packed = zlib.compress(bytes(chance.choice((100, 1 << 20, 40 << 20))), 9)
    more = chance.choice(
        (
            b"",
            _chunk(b"zTXt", b"a\0\0" + packed),
            _chunk(b"iCCP", b"a\0\0" + packed),
            _chunk(b"tEXt", b"a\0" * 999) * 500,
        )
    )
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def _scans(chance: random.Random) -> bytes:
    """Return a progressive JPEG with as many scans as one likes."""
    file = io.BytesIO()
    Image.new("L", (2000, 2000)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * chance.choice((10, 600, 5000)) + data[-2:]


def _programs(chance: random.Random) -> bytes:
    """Return a file of a kind that other programs would be started for."""
    return chance.choice(
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) (w) file\nshowpage\n",
            b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            b"\xd7\xcd\xc6\x9a" + bytes(40),
            b"GRIB" + bytes(40),
            b"BUFR" + bytes(40),
            b"SIMPLE  =                    T" + b" " * 50 + b"END" + bytes(2880),
            b"push graphic-context\nfill 'url(https://127.0.0.1/\"|true\")'\n",
        )
    )


def _huge_tiff(chance: random.Random) -> bytes:
    """Return a TIFF whose directory refers to itself, has many entries, or claims odd sizes."""
    tags = [
        (256, 4, 1, chance.choice((1, 1 << 31, 60_000))),
        (257, 4, 1, chance.choice((1, 1 << 31, 60_000))),
        (258, 3, 1, 8),
    ]
    tags += [
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
        (279, 4, 1, chance.choice((1, (1 << 32) - 1))),
    ]
    tags += [(chance.choice((270, 34675, 700)), 2, chance.choice((1, (1 << 31) - 1)), 8)]
    entries = b"".join(
        tag.to_bytes(2) + kind.to_bytes(2) + count.to_bytes(4) + value.to_bytes(4) for tag, kind, count, value in tags
    )
    return b"MM\0*\0\0\0\x08" + len(tags).to_bytes(2) + entries + chance.choice((8, 0, 1 << 31)).to_bytes(4) + bytes(64)


_ATTACKS = {"JPEG": (_programs, _scans), "PNG": (_png_bomb, _png_bomb, _programs), "TIFF": (_huge_tiff, _programs)}

FORMATS = [
    Format(f"image {suffix}", partial(_wholes, kind), partial(_read, suffix), attacks=_ATTACKS.get(kind, (_programs,)))
    for kind, (suffix, _) in _KINDS.items()
]
