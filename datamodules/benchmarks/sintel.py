"""Sintel: exact depth of a rendered film, in the formats of its authors."""

from typing import ClassVar

import numpy as np

from datamodules.benchmarks.decoding import decode_floats
from datamodules.benchmarks.protocol import Array
from datamodules.benchmarks.ranged_depth import RangedDepth
from geometry.files.limits import MAX_IMAGE_PIXELS

_TAG = 202021.25
_HEADER_BYTES = 12


class SintelDepth(RangedDepth):
    """The training sequences of MPI Sintel, final pass; what is farther than 70 m, such as the sky, does not count.

    Depth and images are released apart, so two archives, or two folders, lie beside each other.
    """

    name = "sintel"
    place = 7
    archives = ("MPI-Sintel-depth-training-20150305.zip",)
    folders = ("MPI-Sintel-depth-training-20150305", "MPI-Sintel")
    companions = (
        "MPI-Sintel-complete.zip",
        "MPI-Sintel-training_images.zip",
        "MPI-Sintel-complete",
        "MPI-Sintel-training_images",
    )
    image_pattern = r"training/final/(?P<frame>[^/]+/frame_\d+)\.png"
    truth = ("training/depth/{frame}.dpt",)
    num_images = 1064
    value_range: ClassVar[tuple[float, float]] = (1e-3, 70.0)
    has_equal_sizes = True

    def decode(self, data: bytes) -> Array:
        """Return the depth (H,W) float32 in a .dpt file: a tag, width, height, and the values row by row."""
        if len(data) < _HEADER_BYTES or np.frombuffer(data, "<f4", 1)[0] != _TAG:
            raise ValueError("it is no depth file of Sintel")
        width, height = (int(side) for side in np.frombuffer(data, "<i4", 2, 4))
        if not (0 < width and 0 < height and width * height <= MAX_IMAGE_PIXELS):
            raise ValueError(f"it claims {height}x{width} pixels")
        return decode_floats(data[_HEADER_BYTES:], height, width)
