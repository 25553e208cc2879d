"""KITTI: sparse depth of streets, on the test images of Eigen's split and on those of the depth completion."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array
from datamodules.benchmarks.ranged_depth import RangedDepth

_NEAREST_RANSAC_M = 0.1
_CROP_SIZE = (352, 1216)
# Eigen's crop as shares of height and width: top, bottom, left, right.
_EIGEN_CROP = (0.3324324, 0.91351351, 0.0359477, 0.96405229)


class _StreetDepth(RangedDepth):
    """Depth up to 80 m."""

    units_per_m = 256.0
    value_range: ClassVar[tuple[float, float]] = (1e-5, 80.0)


class KittiDepth(_StreetDepth):
    """KITTI, Eigen's test split: image and depth cut to the benchmark's 352x1216, then Eigen's crop of that.

    The tree of the projected laser scans begins at the drive, not at the day.
    """

    name = "kitti"
    place = 2
    archives = ("kitti_eigen_split_test.tar",)
    folders = ("kitti_eigen_split_test", "kitti")
    image_pattern = r"\d{4}_\d\d_\d\d/(?P<drive>[^/]+_sync)/(?P<camera>image_0[23])/data/(?P<file>\d+\.png)"
    truth = ("{drive}/proj_depth/groundtruth/{camera}/{file}",)
    num_images = 652

    def crop(self, values: Array) -> Array:
        """Return the bottom 352 rows and the middle 1216 columns."""
        height, width = _CROP_SIZE
        if values.shape[0] < height or values.shape[1] < width:
            raise ValueError(f"it has {values.shape[0]}x{values.shape[1]} pixels, too few for {height}x{width}")
        top, left = values.shape[0] - height, (values.shape[1] - width) // 2
        return values[top : top + height, left : left + width]

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return depth in metres and the mask of the pixels that count."""
        depth, mask = super().read_truth(files, paths)
        height, width = depth.shape
        top, bottom, left, right = (
            int(share * side) for share, side in zip(_EIGEN_CROP, (height, height, width, width), strict=True)
        )
        inside = np.zeros(depth.shape, dtype=bool)
        inside[top:bottom, left:right] = True
        return depth, inside & mask

    def references(self, truth: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
        """Return the depth that Pixel-Perfect Depth counts, from 0.1 m on."""
        return {"ransac_log": (truth, mask & (truth > _NEAREST_RANSAC_M))}


class KittiCompletionDepth(_StreetDepth):
    """The 1000 cropped validation frames of ``data_depth_selection.zip``, with denser depth than single scans have."""

    name = "kitti_completion"
    place = 8
    archives = ("data_depth_selection.zip",)
    folders = ("data_depth_selection", "depth_selection")
    image_pattern = r"val_selection_cropped/image/(?P<drive>[\d_]+_drive_\d+_sync)_image_(?P<file>\d+_image_0[23]\.png)"
    truth = ("val_selection_cropped/groundtruth_depth/{drive}_groundtruth_depth_{file}",)
    num_images = 1000
    has_equal_sizes = True
