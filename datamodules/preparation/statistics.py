"""What is worth knowing about many samples at once: counted exactly, so that parts add up to the same in any order."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

Array = np.ndarray

# A bin holds 8 neighbouring float16 numbers: less than 0.8 % wide, and never in need of a range.
_BITS_PER_BIN = 3
_QUANTILES = (0.02, 0.5, 0.98)


@dataclass
class SplitStatistics:
    """Counts over the samples of a split, or of a part of it.

    Attributes:
        samples: samples stored.
        num_bytes: bytes of their entries.
        pixels: pixels of their depth images.
        valid_pixels: those with known depth.
        depth_min_m: smallest depth in metres; None if no depth is known.
        depth_max_m: largest depth in metres; None if no depth is known.
        histogram: pixels by depth; a bin is a float16 number's bits without the last three.
        counts: samples by where their camera and normals come from ("camera scene", "normals native", ...).
        skipped: keys of the samples that could not be read.
        left_out: keys of the samples with too many invalid pixels.
    """

    samples: int = 0
    num_bytes: int = 0
    pixels: int = 0
    valid_pixels: int = 0
    depth_min_m: float | None = None
    depth_max_m: float | None = None
    histogram: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def mean_valid_share(self) -> float:
        """Share of pixels with known depth, from 0 to 1."""
        return self.valid_pixels / max(self.pixels, 1)

    def add_depth(self, depth: Array, nearest_m: float | None, farthest_m: float | None) -> None:
        """Count the pixels of one sample.

        Args:
            depth: (H,W) float16, metres, 0 where unknown.
            nearest_m: the sample's smallest depth, None if none is known.
            farthest_m: the sample's largest depth.
        """
        bins = np.bincount(np.ascontiguousarray(depth[depth > 0]).view(np.uint16) >> _BITS_PER_BIN)
        used = np.flatnonzero(bins)
        self.histogram.update(dict(zip(used.tolist(), bins[used].tolist(), strict=True)))
        self.pixels += depth.size
        self.valid_pixels += int(bins.sum())
        self._widen(nearest_m, farthest_m)

    def add(self, other: "SplitStatistics") -> None:
        """Add the counts over other samples."""
        self.samples += other.samples
        self.num_bytes += other.num_bytes
        self.pixels += other.pixels
        self.valid_pixels += other.valid_pixels
        self.histogram.update(other.histogram)
        self.counts.update(other.counts)
        self.skipped += other.skipped
        self.left_out += other.left_out
        self._widen(other.depth_min_m, other.depth_max_m)

    def depth_quantile_m(self, share: float) -> float | None:
        """Return the depth in metres below which a share of the known pixels lies, within 0.4 %; None without any."""
        target, seen = share * self.valid_pixels, 0
        for number, count in sorted(self.histogram.items()):
            seen += count
            if seen >= target:
                middle = (number << _BITS_PER_BIN) + (1 << (_BITS_PER_BIN - 1))
                return float(f"{float(np.array(middle, np.uint16).view(np.float16)):.4g}")
        return None

    def summary(self) -> dict[str, Any]:
        """Return what ``dataset.json`` says about the split: JSON values."""
        return {
            "samples": self.samples,
            "num_bytes": self.num_bytes,
            "valid_share": round(self.mean_valid_share, 6),
            "depth_min_m": self.depth_min_m,
            "depth_max_m": self.depth_max_m,
            "depth_quantiles_m": {str(share): self.depth_quantile_m(share) for share in _QUANTILES},
            "counts": dict(sorted(self.counts.items())),
            "skipped": self.skipped,
            "left_out": self.left_out,
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; ``from_json`` reads them."""
        return {
            **asdict(self),
            "histogram": sorted(self.histogram.items()),
            "counts": dict(sorted(self.counts.items())),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Return the statistics that ``to_json`` wrote."""
        histogram = {int(number): int(count) for number, count in document["histogram"]}
        return cls(**{**document, "histogram": Counter(histogram), "counts": Counter(document["counts"])})

    def _widen(self, nearest_m: float | None, farthest_m: float | None) -> None:
        if nearest_m is not None and farthest_m is not None:
            self.depth_min_m = nearest_m if self.depth_min_m is None else min(self.depth_min_m, nearest_m)
            self.depth_max_m = farthest_m if self.depth_max_m is None else max(self.depth_max_m, farthest_m)
