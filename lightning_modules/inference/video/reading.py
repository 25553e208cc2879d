"""Frames of a video file, or of a folder of images."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geometry.errors import InputError, one_line
from geometry.files.limits import MAX_VIDEO_BYTES, MAX_VIDEO_FRAME_PIXELS, MAX_VIDEO_FRAMES
from geometry.files.listing import is_junk
from geometry.files.reading import open_regular_file
from lightning_modules.inference.image_inputs import SUFFIXES, read_image

VIDEO_SUFFIXES = frozenset(".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .ogv .wmv .flv".split())

# Containers that may be read. Others, above all playlists, name further files and addresses, which FFmpeg would open.
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,ogg,asf,flv"
_HIGHEST_RATE = 1000


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        name: what its result is called.
        image: (H,W,3) uint8, uint16 or float32 in [0, 1], upright RGB.
    """

    name: str
    image: np.ndarray


@dataclass(frozen=True)
class Clip:
    """A video that is open for reading.

    Attributes:
        rate: frames per second.
        frames: its frames, all of one size, at least one. They are read as they are asked for.
    """

    rate: Fraction
    frames: Iterator[Frame]


@contextmanager
def open_clip(path: Path, fps: float) -> Iterator[Clip]:
    """Open a video file, or a folder of frames in the order of their names.

    Args:
        path: the file or folder.
        fps: frames per second of a folder.

    Yields:
        The clip. Reading its frames raises what opening does.

    Raises:
        InputError: it is no video, is damaged, has no frame or too many, or frames too large or of several sizes.
    """
    if path.is_dir():
        yield Clip(Fraction(fps).limit_denominator(1001), _of_one_size(path, _folder_frames(path)))
        return
    if find_spec("av") is None:
        raise InputError(f"{path} is a video, which needs the package av: pip install -e '.[video]'.")
    import av

    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
    with _one_line(path), _opened(path) as stream, av.open(stream, container_options=options) as container:
        if not container.streams.video:
            raise InputError(f"{path} has no video in it.")
        video = container.streams.video[0]
        _check_size(path, video.height, video.width)
        if video.frames > MAX_VIDEO_FRAMES:
            raise _too_long(path)
        rate = video.average_rate or video.guessed_rate
        if not rate or not 0 < rate <= _HIGHEST_RATE:
            raise InputError(f"{path} does not say how many frames a second has; convert it, or give its frames.")
        yield Clip(Fraction(rate), _of_one_size(path, _file_frames(path, container, video)))


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular_file(path, MAX_VIDEO_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Turn what FFmpeg makes of arbitrary bytes into an ``InputError``."""
    import av

    try:
        yield
    except (av.FFmpegError, ValueError, UnicodeDecodeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} cannot be read as a video: {one_line(error, 200)}.") from error


def _file_frames(path: Path, container: Any, video: Any) -> Iterator[Frame]:  # noqa: ANN401 - PyAV has no types
    video.thread_type = "AUTO"
    for number, frame in enumerate(container.decode(video), start=1):
        if number > MAX_VIDEO_FRAMES:
            raise _too_long(path)
        if frame.is_corrupt:
            raise InputError(f"frame {number} of {path} is damaged; copy the video again, or cut the frame out.")
        _check_size(path, frame.height, frame.width)
        image = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
        yield Frame(f"{number:06d}", np.ascontiguousarray(image))


def _folder_frames(path: Path) -> Iterator[Frame]:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not is_junk(file.name))
    if len(files) > MAX_VIDEO_FRAMES:
        raise _too_long(path)
    for number, file in enumerate(files, start=1):
        yield Frame(f"{number:06d}", read_image(file, MAX_VIDEO_FRAME_PIXELS))


def _of_one_size(path: Path, frames: Iterator[Frame]) -> Iterator[Frame]:
    size: tuple[int, ...] | None = None
    for frame in frames:
        found = frame.image.shape[:2]
        if size not in (None, found):
            assert size is not None
            raise InputError(
                f"frame {frame.name} of {path} has {found[1]}x{found[0]} pixels, those before it {size[1]}x{size[0]}; "
                "the frames of a video have one size. Predict the images without --video, or resize them."
            )
        size = found
        yield frame
    if size is None:
        raise InputError(f"{path} holds no frames.")


def _check_size(path: Path, height: int, width: int) -> None:
    if height * width > MAX_VIDEO_FRAME_PIXELS:
        raise InputError(
            f"{path} has frames of {width}x{height} pixels, more than {MAX_VIDEO_FRAME_PIXELS // 10**6} megapixels; "
            "make it smaller first."
        )


def _too_long(path: Path) -> InputError:
    return InputError(f"{path} has more than {MAX_VIDEO_FRAMES} frames; cut it into parts first.")
