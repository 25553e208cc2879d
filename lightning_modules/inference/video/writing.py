"""Coloured frames as a video of H.264."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from uuid import uuid4

import numpy as np

_QUALITY = "16"  # x264's constant rate factor; visually lossless is below 18
_BT709 = 1


@contextmanager
def written_video(file: Path, rate: Fraction) -> Iterator[Callable[[np.ndarray], None]]:
    """Write frames under a temporary name, and give the file its name when all are written.

    Odd sides get another row or column, for H.264 stores colours of 2x2 pixels.

    Args:
        file: where to; its folder must exist.
        rate: frames per second.

    Yields:
        What adds a frame: (H,W,3) uint8 RGB, all of one size.
    """
    import av

    temporary = file.with_name(f".writing-{uuid4().hex}")
    try:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": _QUALITY})
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = _BT709

            def add(image: np.ndarray) -> None:
                height, width = image.shape[:2]
                padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                if not context.is_open:
                    stream.height, stream.width = padded.shape[:2]
                frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
                container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))

            yield add
            container.mux(stream.encode())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
