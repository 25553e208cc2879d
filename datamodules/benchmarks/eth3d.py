"""ETH3D: laser-scanned depth of buildings at 24 million pixels, as raw float32 numbers."""

from collections.abc import Sequence
from typing import ClassVar

import cv2
import numpy as np

from datamodules.benchmarks.decoding import decode_floats
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark

_SIZE = (4032, 6048)
# What Pixel-Perfect Depth scores: every so many pixels, at least so far away.
_SIZE_RANSAC = (1360, 2048)
_NEAREST_RANSAC_M = 0.01


class Eth3dDepth(Benchmark):
    """ETH3D, high-resolution multi-view training images; predicted at 756 pixels, fitted at 1024, scored in full.

    Files of depth have the image's name and no header.
    """

    name = "eth3d"
    modality = "depth"
    place = 3
    archives = ("eth3d.tar",)
    folders = ("eth3d",)
    image_pattern = r"rgb/(?P<scene>[^/]+)/images/(?P<file>dslr_images/[^/]+\.JPG)"
    truth = ("depth/{scene}_dslr_depth/{scene}/ground_truth_depth/{file}",)
    num_images = 454
    value_range: ClassVar[tuple[float, float]] = (1e-5, float("inf"))
    max_fit_size_px: ClassVar[int | None] = 1024
    longest_side_px: ClassVar[int | None] = 756

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return depth in metres and the mask of the pixels that count; infinite depth is unknown."""
        depth = decode_floats(files.read(paths[0]), *_SIZE)
        return depth, (depth > self.value_range[0]) & np.isfinite(depth)

    def references(self, truth: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
        """Return the depth that Pixel-Perfect Depth counts, picked down to 1360x2048 pixels."""
        picked = cv2.resize(truth, _SIZE_RANSAC[::-1], interpolation=cv2.INTER_NEAREST)
        return {"ransac_log": (picked, (picked > _NEAREST_RANSAC_M) & np.isfinite(picked))}
