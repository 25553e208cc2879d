"""Depth that counts within a range: what most benchmarks of depth share."""

from collections.abc import Sequence
from typing import ClassVar

from datamodules.benchmarks.decoding import decode_depth_png
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark


class RangedDepth(Benchmark):
    """Depth in a 16-bit PNG; what lies inside ``value_range``, without its ends, counts.

    Attributes:
        units_per_m: stored value of one metre.
    """

    modality = "depth"
    units_per_m: ClassVar[float] = 1000.0

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return depth in metres and the mask of the pixels that count."""
        depth = self.crop(self.decode(files.read(paths[0])))
        nearest, farthest = self.value_range
        return depth, (depth > nearest) & (depth < farthest)

    def decode(self, data: bytes) -> Array:
        """Return the depth (H,W) float32 in a file, in metres."""
        return decode_depth_png(data, self.units_per_m)
