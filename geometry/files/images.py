"""Opening images: the one place that decides which files are images, and whether they are whole.

Needs Pillow and simplejpeg, which nothing else of ``geometry`` does; ``geometry`` does not import it by itself.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from geometry.errors import InputError
from geometry.files.limits import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, MAX_JPEG_SCANS
from geometry.files.photo_kinds import can_read_heif, why_unreadable
from geometry.files.reading import open_regular_file, require_bytes

# What Pillow may read. Others are refused, above all those that start another program (EPS starts Ghostscript).
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "TGA")
_JPEG_FORMATS = ("JPEG", "MPO")  # MPO: a JPEG with more images behind it, as phones write them
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PAPER_WHITE = 255
# Warnings of libjpeg about headers that change no pixel.
_HARMLESS = ("Unknown Adobe color transform", "Invalid SOS parameters", "Warning: unknown JFIF revision")


@contextmanager
def open_image(
    file: str | Path | IO[bytes], name: object = "the image", max_pixels: int | None = None
) -> Iterator[Image.Image]:
    """Open an image whose format is known, whose size is bounded, and which is whole if it is a JPEG.

    What the decoder raises within the context becomes an ``InputError``, too.

    Args:
        file: a path, or an open binary file.
        name: what messages call it.
        max_pixels: refuse larger images before they are decoded; None takes up to ``MAX_IMAGE_PIXELS``.

    Yields:
        The image, not decoded yet.

    Raises:
        InputError: the file is not there, is no image of a known kind, is damaged or too large.
    """
    if isinstance(file, str | Path) and (reason := why_unreadable(file)):
        raise InputError(f"{name} {reason}.")
    try:
        with warnings.catch_warnings(), _stream(file) as stream:
            warnings.simplefilter("ignore")  # large images and odd metadata
            with Image.open(stream, formats=_formats()) as image:
                _require_size(image, name, max_pixels)
                if image.format in _JPEG_FORMATS:
                    _require_whole(stream, name)
                yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{name} is no image of a known kind.") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name} has more than {MAX_IMAGE_PIXELS // 10**6} megapixels. Make it smaller first."
        ) from error
    except MemoryError as error:
        raise InputError(f"{name} does not fit in memory.") from error
    except Exception as error:  # whatever Pillow makes of arbitrary bytes
        raise InputError(f"{name} cannot be read: {_reason(error)}") from error


def require_whole_jpeg(data: bytes, name: object = "the image") -> None:
    """Make sure that a JPEG is not damaged; other decoders return grey or shifted blocks without a word.

    Every code is read, for about a quarter of the time that decoding takes. A damage that leaves a valid sequence of
    codes cannot be told from an image.

    Args:
        data: bytes of the file.
        name: what messages call it.

    Raises:
        InputError: the decoder warns about the data, or there are hundreds of scans.
    """
    _decode_strictly(data, name, "GRAY", min_height=1, min_width=1)


def decode_whole_jpeg(data: bytes, name: object = "the image") -> np.ndarray | None:
    """Return the pixels of a JPEG that is not damaged, as it is stored: what EXIF data says is not looked at.

    The pixels are those of OpenCV, which takes twice the time and passes grey blocks on in place of damaged ones.

    Args:
        data: bytes of the file.
        name: what messages call it.

    Returns:
        (H,W,3) uint8, RGB; None for a layout that simplejpeg cannot read, such as CMYK.

    Raises:
        InputError: the decoder warns about the data, or there are hundreds of scans.
    """
    return _decode_strictly(data, name, "RGB")


def _decode_strictly(data: bytes, name: object, space: str, **options: int) -> np.ndarray | None:
    if data.count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise InputError(f"{name} is a JPEG of more than {MAX_JPEG_SCANS} scans.")
    try:
        return simplejpeg.decode_jpeg(data, space, strict=True, **options)
    except ValueError as error:
        message = str(error)
        # Messages of the wrapper are about layouts that it cannot read, not about damage.
        if not message.startswith(("tj", *_HARMLESS)):
            raise InputError(
                f"{name} is a damaged JPEG: {message}. Copy it again, or save anew what is left."
            ) from error
    return None


def require_whole_png(data: bytes, name: object = "the image") -> None:
    """Make sure that the chunks of a PNG lie within it; OpenCV reserves whatever a chunk claims, up to 2 GB.

    Args:
        data: bytes of the file.
        name: what messages call it.

    Raises:
        InputError: the bytes are no PNG, or a chunk claims more than there is.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise InputError(f"{name} cannot be read: it is no PNG.")
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        at += 12 + length
        if at > len(data):
            raise InputError(f"{name} is no complete PNG. Copy it again.")


def rgb_of(image: Image.Image, is_upright: bool = True) -> np.ndarray:
    """Return an open image as people see it, on white where it is transparent.

    Args:
        image: an image of any mode.
        is_upright: turn it as its EXIF data says.

    Returns:
        (H,W,3), uint8, uint16 or float32 in [0, 1].
    """
    image = _upright(image) if is_upright else image
    if image.mode.startswith(("I", "F")):
        return np.repeat(_high_depth(np.asarray(image))[..., None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, (_PAPER_WHITE,) * 4)
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("RGB"))


@cache
def _formats() -> tuple[str, ...]:
    """Return the formats that are read here: HEIC, too, where its package is installed."""
    if not can_read_heif():
        return FORMATS
    import pillow_heif

    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


@contextmanager
def _stream(file: str | Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if not isinstance(file, str | Path):
        yield file
        return
    with open_regular_file(Path(file), MAX_IMAGE_BYTES) as stream:
        yield stream


def _require_whole(stream: IO[bytes], name: object) -> None:
    place = stream.tell()
    stream.seek(0)
    data = stream.read(MAX_IMAGE_BYTES + 1)
    require_bytes(len(data), MAX_IMAGE_BYTES, str(name))
    require_whole_jpeg(data, name)
    stream.seek(place)


def _require_size(image: Image.Image, name: object, max_pixels: int | None) -> None:
    pixels = image.size[0] * image.size[1]
    if max_pixels is not None and pixels > max_pixels:
        raise InputError(
            f"{name}: {pixels / 1e6:.0f} megapixels are too many; at most {max_pixels / 1e6:.0f} are taken."
        )
    if pixels > MAX_IMAGE_PIXELS:  # also where Pillow's own limit was changed
        raise Image.DecompressionBombError


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF data says; damaged EXIF data says nothing."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # whatever Pillow makes of arbitrary bytes
        return image


def _high_depth(grey: np.ndarray) -> np.ndarray:
    """Return (H,W) grey of more than 8 bits as uint16, or as float32 in [0, 1]."""
    if grey.dtype.kind in "ui" and grey.min() >= 0 and grey.max() <= 65535:
        return grey.astype(np.uint16)
    grey = np.nan_to_num(grey.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0).clip(min=0)
    return grey / max(1.0, float(grey.max()))


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
