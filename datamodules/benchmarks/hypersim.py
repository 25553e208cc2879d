"""Hypersim's test split as the authors of Marigold prepare it: depth with its edges, and albedo."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from datamodules.benchmarks.decoding import decode_npy
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark
from datamodules.benchmarks.ranged_depth import RangedDepth


class HypersimEdges(RangedDepth):
    """Depth of the test split at its own size, 768x1024, for the soft edge errors of Marigold V2."""

    name = "hypersim_edges"
    place = 10
    archives = ("hypersim_processed_test.tar",)
    folders = ("hypersim/test", "hypersim_processed_test")
    image_pattern = r"(?P<scene>ai_\d+_\d+)/rgb_cam_(?P<file>\d+_fr\d+\.png)"
    truth = ("{scene}/depth_plane_cam_{file}",)
    num_images = 7682
    value_range: ClassVar[tuple[float, float]] = (1e-5, 65.0)
    has_equal_sizes = True
    metrics = ("soft_edges",)


class HypersimAlbedo(Benchmark):
    """Albedo of the test split for the intrinsic decomposition of Marigold; black pixels do not count.

    The source's masks are by channel. Here a pixel with a channel that is no number counts in none.
    """

    name = "hypersim"
    modality = "albedo"
    place = 1
    archives = ("hypersim_iid_test.tar",)
    folders = ("hypersim_iid", "hypersim")
    image_pattern = r"(?P<scene>test/ai_\d+_\d+)/rgb_cam_(?P<frame>\d+_fr\d+)\.png"
    truth = ("{scene}/albedo_cam_{frame}.npy",)
    num_images = 5238
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    has_equal_sizes = True

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return linear albedo and the mask of the pixels that count."""
        albedo = decode_npy(files.read(paths[0]))
        if albedo.ndim != 3 or albedo.shape[2] != 3:
            raise ValueError(f"its shape is {albedo.shape}, not (H, W, 3)")
        known = np.isfinite(albedo).all(axis=2) & (albedo != 0).any(axis=2)
        return np.where(known[..., None], albedo, 0).astype(np.float32), known
