"""Coloured frames as a video of H.264."""

import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import numpy as np

_QUALITY = "16"  # x264's constant rate factor; visually lossless is below 18
_BT709 = 1


class VideoWriter:
    """Writes frames under a temporary name, and gives the file its name when all are written.

    Odd sides get another row or column, for H.264 stores colours of 2x2 pixels.

    Args:
        file: where to; its folder must exist.
        rate: frames per second.
    """

    def __init__(self, file: Path, rate: Fraction) -> None:
        self.file = file
        self.rate = rate
        self._temporary = file.with_name(f".writing-{uuid4().hex}")

    def __enter__(self) -> Self:
        import av

        self._container = av.open(str(self._temporary), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=self.rate, options={"crf": _QUALITY})
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        return self

    def add(self, image: np.ndarray) -> None:
        """Add a frame.

        Args:
            image: (H,W,3) uint8 RGB, all of one size.
        """
        import av

        height, width = image.shape[:2]
        padded = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._stream.codec_context.is_open:
            self._stream.height, self._stream.width = padded.shape[:2]
        frame = av.VideoFrame.from_ndarray(padded, format="rgb24")
        for packet in self._stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")):
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                for packet in self._stream.encode():
                    self._container.mux(packet)
            self._container.close()
            if error is None:
                os.replace(self._temporary, self.file)
        finally:
            self._temporary.unlink(missing_ok=True)
