"""KITTI's depth completion: the selected validation frames, for depth from the image alone."""

from collections.abc import Sequence
from typing import ClassVar

from datamodules.benchmarks.decoding import decode_depth_png
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark

_UNITS_PER_M = 256.0


class KittiCompletionDepth(Benchmark):
    """The 1000 cropped validation frames of ``data_depth_selection.zip``, with denser depth than single scans have."""

    name = "kitti_completion"
    modality = "depth"
    place = 8
    archives = ("data_depth_selection.zip",)
    folders = ("data_depth_selection", "depth_selection")
    image_pattern = r"val_selection_cropped/image/[\d_]+_drive_\d+_sync_image_\d+_image_0[23]\.png"
    num_images = 1000
    value_range: ClassVar[tuple[float, float]] = (1e-5, 80.0)
    has_equal_sizes = True

    def truth_of(self, image: str) -> tuple[str, ...]:
        """Return the path of the depth."""
        folder, _, file = image.rpartition("image/")
        return (f"{folder}groundtruth_depth/{file.replace('_sync_image_', '_sync_groundtruth_depth_')}",)

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return depth in metres and the mask of the pixels that count."""
        depth = decode_depth_png(files.read(paths[0]), _UNITS_PER_M)
        nearest, farthest = self.value_range
        return depth, (depth > nearest) & (depth < farthest)
