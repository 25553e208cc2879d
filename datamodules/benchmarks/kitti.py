"""KITTI: sparse depth of streets, on the test images of Eigen's split."""

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from datamodules.benchmarks.decoding import decode_depth_png
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark

_UNITS_PER_M = 256.0
_NEAREST_RANSAC_M = 0.1
_CROP_SIZE = (352, 1216)
# Eigen's crop as shares of height and width: top, bottom, left, right.
_EIGEN_CROP = (0.3324324, 0.91351351, 0.0359477, 0.96405229)


class KittiDepth(Benchmark):
    """KITTI, Eigen's test split: image and depth cut to the benchmark's 352x1216, then Eigen's crop of that."""

    name = "kitti"
    modality = "depth"
    place = 2
    archives = ("kitti_eigen_split_test.tar",)
    folders = ("kitti_eigen_split_test", "kitti")
    image_pattern = r"\d{4}_\d\d_\d\d/[^/]+_sync/image_0[23]/data/\d+\.png"
    num_images = 652
    value_range: ClassVar[tuple[float, float]] = (1e-5, 80.0)

    def truth_of(self, image: str) -> tuple[str, ...]:
        """Return the path of the projected laser scans: their tree begins at the drive, not at the day."""
        match = re.fullmatch(r"(.*/)?[\d_]+/([^/]+_sync)/(image_0[23])/data/(\d+\.png)", image)
        if match is None:
            return ("",)
        before, drive, camera, file = match.groups()
        return (f"{before or ''}{drive}/proj_depth/groundtruth/{camera}/{file}",)

    def crop(self, values: Array) -> Array:
        """Return the bottom 352 rows and the middle 1216 columns."""
        height, width = _CROP_SIZE
        if values.shape[0] < height or values.shape[1] < width:
            raise ValueError(f"it has {values.shape[0]}x{values.shape[1]} pixels, too few for {height}x{width}")
        top, left = values.shape[0] - height, (values.shape[1] - width) // 2
        return values[top : top + height, left : left + width]

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return depth in metres and the mask of the pixels that count."""
        depth = self.crop(decode_depth_png(files.read(paths[0]), _UNITS_PER_M))
        nearest, farthest = self.value_range
        height, width = depth.shape
        top, bottom, left, right = (
            int(share * side) for share, side in zip(_EIGEN_CROP, (height, height, width, width), strict=True)
        )
        inside = np.zeros(depth.shape, dtype=bool)
        inside[top:bottom, left:right] = True
        return depth, inside & (depth > nearest) & (depth < farthest)

    def references(self, truth: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
        """Return the depth that Pixel-Perfect Depth counts, from 0.1 m on."""
        return {"ransac_log": (truth, mask & (truth > _NEAREST_RANSAC_M))}
