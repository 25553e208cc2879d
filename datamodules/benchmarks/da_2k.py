"""DA-2K: which of two marked points is nearer, in images from anywhere."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from datamodules.benchmarks.decoding import decode_image
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark, NoGroundTruthError, Sample
from geometry.files.json_text import parse_json
from geometry.files.limits import MAX_MANIFEST_BYTES

_POINTS = ("point1", "point2")


class Da2kDepth(Benchmark):
    """DA-2K of Depth Anything V2, ``DA-2K.zip``: pairs of points and nothing else, so its one metric is their order.

    The size at which images are predicted is left open by the authors; here they are shrunk to 768 pixels.
    """

    name = "da_2k"
    modality = "depth"
    place = 9
    archives = ("DA-2K.zip",)
    folders = ("DA-2K",)
    image_pattern = r"images/.+\.(?:jpg|jpeg|png|JPG|JPEG|PNG)"
    truth = ("annotations.json",)
    longest_side_px: ClassVar[int | None] = 768
    metrics = ("ordinal",)
    has_own_metrics = True

    def read(self, files: BenchmarkFiles, image: str, paths: Sequence[str]) -> Sample:
        """Return a sample with the reference ``pairs``; its depth is unknown everywhere."""
        listed = _annotations(files.read(paths[0]))
        key = image.removeprefix(paths[0].removesuffix("annotations.json"))
        if not listed.get(key):
            raise NoGroundTruthError(f"no pair of points in {paths[0]}")
        pixels = decode_image(files.read(image))
        pairs = _pairs(listed[key], pixels.shape[:2])
        nothing = np.zeros(pixels.shape[:2], np.float32)
        return Sample(pixels, nothing, nothing > 0, {"pairs": (pairs[None], np.ones((1, len(pairs)), bool))})

    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Raise: nobody measured depth."""
        raise NoGroundTruthError("DA-2K knows pairs of points alone")


@lru_cache(maxsize=2)
def _annotations(data: bytes) -> dict[str, Any]:
    """Return the lists of pairs by image."""
    listed = parse_json(data, MAX_MANIFEST_BYTES)
    if not isinstance(listed, dict):
        raise ValueError("annotations.json is no object of lists by image")
    return listed


def _pairs(listed: Any, size: tuple[int, int]) -> Array:  # noqa: ANN401 - whatever JSON holds
    """Return (N,7) float32: row and column of both points, number of the nearer one, height and width."""
    try:
        rows = [
            [*(float(side) for name in _POINTS for side in pair[name]), 1 + _POINTS.index(pair["closer_point"]), *size]
            for pair in listed
        ]
        pairs = np.array(rows, np.float32).reshape(len(rows), 7)
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError("its pairs are not as DA-2K describes them (point1, point2, closer_point)") from error
    points = pairs[:, :4].reshape(-1, 2)
    if not ((points >= 0) & (points < size)).all():
        raise ValueError(f"a point lies outside the image of {size[0]}x{size[1]} pixels")
    return pairs
