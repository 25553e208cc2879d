"""NYUv2 and ScanNet: depth of rooms as 16-bit PNG in millimetres."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array
from datamodules.benchmarks.ranged_depth import RangedDepth


class _RoomDepth(RangedDepth):
    """Depth between 1 mm and 10 m, both excluded."""

    value_range: ClassVar[tuple[float, float]] = (1e-3, 10.0)
    nearest_ransac_m: ClassVar[float]

    def references(self, truth: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
        """Return the depth that Pixel-Perfect Depth counts: from another distance on, and to the border."""
        return {"ransac_log": (truth, (truth > self.nearest_ransac_m) & (truth < self.value_range[1]))}


class NyuDepth(_RoomDepth):
    """NYU Depth v2, labelled test set: raw depth, not filled; the border that its projection misses does not count."""

    name = "nyuv2"
    place = 1
    archives = ("nyu_labeled_extracted.tar",)
    folders = ("nyu_labeled_extracted", "nyuv2")
    image_pattern = r"(?P<folder>test/[^/]+)/rgb_(?P<number>\d+)\.png"
    truth = ("{folder}/depth_{number}.png",)
    num_images = 654
    nearest_ransac_m = 0.1

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return depth in metres and the mask of the pixels that count."""
        depth, mask = super().read_truth(files, paths)
        inside = np.zeros_like(mask)
        inside[45:471, 41:601] = True
        return depth, mask & inside


class ScanNetDepth(_RoomDepth):
    """ScanNet, 800 validation frames sampled by the authors of Marigold."""

    name = "scannet"
    place = 4
    archives = ("scannet_val_sampled_800_1.tar",)
    folders = ("scannet_val_sampled_800_1", "scannet")
    image_pattern = r"(?P<scene>scene\d+_\d+)/color/(?P<number>\d+)\.jpg"
    truth = ("{scene}/depth/{number}.png",)
    num_images = 800
    nearest_ransac_m = 0.01
