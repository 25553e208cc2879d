"""DIODE: laser-scanned depth indoors and outdoors, as NumPy arrays."""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from datamodules.benchmarks.decoding import decode_npy
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark

_EDGE_RANSAC = 0.3
_ALONG = ((1, 0), (0, 1))


class DiodeDepth(Benchmark):
    """DIODE, validation images indoors and outdoors; the mask is the data set's own, the range only clips."""

    name = "diode"
    modality = "depth"
    place = 5
    archives = ("diode_val.tar",)
    folders = ("diode_val", "diode")
    image_pattern = r"(?P<stem>(?:indoors|outdoor)/[^/]+/[^/]+/[^/]+)\.png"
    truth = ("{stem}_depth.npy", "{stem}_depth_mask.npy")
    num_images = 771
    value_range: ClassVar[tuple[float, float]] = (0.6, 350.0)
    longest_side_px: ClassVar[int | None] = 640

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return depth in metres and the mask of the pixels that count; depth of 0 is none, whatever the mask says."""
        depth, mask = (decode_npy(files.read(path)) for path in paths)
        if depth.ndim != 2 or depth.shape != mask.shape:
            raise ValueError(f"depth and mask have the shapes {depth.shape} and {mask.shape}")
        depth = depth.astype(np.float32)
        return depth, (mask != 0) & (depth > 0) & np.isfinite(depth)

    def references(self, truth: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
        """Return the depth that Pixel-Perfect Depth counts: inside the range, and away from edges.

        An edge is where the absolute slopes of a Sobel filter add up to more than 0.3. That leaves out the smeared
        borders of DIODE's depth, and explains most of the difference between published figures.
        """
        nearest, farthest = self.value_range
        slopes = sum(np.abs(cv2.Sobel(truth, cv2.CV_32F, *order, borderType=cv2.BORDER_REFLECT)) for order in _ALONG)
        inside = (truth >= nearest) & (truth <= farthest) & np.isfinite(truth)
        return {"ransac_log": (truth, mask & inside & ~(slopes > _EDGE_RANSAC))}
