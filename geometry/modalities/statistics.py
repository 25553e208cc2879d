"""What is worth knowing about the values of many images: counted exactly, so that parts add up in any order."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

Array = np.ndarray

# A bin holds 8 neighbouring float16 numbers: less than 0.8 % wide, and never in need of a range.
_BITS_PER_BIN = 3
_SIGN = 0x8000
QUANTILES = (0.02, 0.5, 0.98)


@dataclass
class ValueStatistics:
    """Counts over the values of one modality in many images.

    Attributes:
        pixels: pixels of the images.
        known_pixels: those with a known value.
        minimum: smallest number in the unit of the modality; None if none is known or counted.
        maximum: largest number.
        histogram: numbers by bin; a bin is the place of a float16 number among all of them, without its last three
            bits.
    """

    pixels: int = 0
    known_pixels: int = 0
    minimum: float | None = None
    maximum: float | None = None
    histogram: Counter[int] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """Share of pixels with a known value, from 0 to 1."""
        return self.known_pixels / max(self.pixels, 1)

    def add_image(self, is_known: Array, numbers: Array, minimum: float | None, maximum: float | None) -> None:
        """Count one image.

        Args:
            is_known: (H,W) bool.
            numbers: (N,) the numbers to count, as float16 rounds them.
            minimum: the smallest of them; None if there is none.
            maximum: the largest of them.
        """
        bins = np.bincount(_places(numbers) >> _BITS_PER_BIN)
        used = np.flatnonzero(bins)
        self.histogram.update(dict(zip(used.tolist(), bins[used].tolist(), strict=True)))
        self.pixels += is_known.size
        self.known_pixels += int(np.count_nonzero(is_known))
        self._widen(minimum, maximum)

    def add(self, other: "ValueStatistics") -> None:
        """Add the counts over other images."""
        self.pixels += other.pixels
        self.known_pixels += other.known_pixels
        self.histogram.update(other.histogram)
        self._widen(other.minimum, other.maximum)

    def quantile(self, share: float) -> float | None:
        """Return the number below which a share of those counted lies, within 0.4 %; None without any."""
        target, seen = share * self.histogram.total(), 0
        for number, count in sorted(self.histogram.items()):
            seen += count
            if seen >= target:
                return _number_at((number << _BITS_PER_BIN) + (1 << (_BITS_PER_BIN - 1)))
        return None

    def summary(self) -> dict[str, Any]:
        """Return what ``dataset.json`` says: JSON values."""
        return {
            "share": round(self.share, 6),
            "min": self.minimum,
            "max": self.maximum,
            "quantiles": {str(share): self.quantile(share) for share in QUANTILES},
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; ``from_json`` reads them."""
        return {**asdict(self), "histogram": sorted(self.histogram.items())}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the statistics that ``to_json`` wrote."""
        histogram = Counter({int(number): int(count) for number, count in document["histogram"]})
        return cls(**{**document, "histogram": histogram})

    def _widen(self, minimum: float | None, maximum: float | None) -> None:
        if minimum is not None and maximum is not None:
            self.minimum = minimum if self.minimum is None else min(self.minimum, minimum)
            self.maximum = maximum if self.maximum is None else max(self.maximum, maximum)


def _places(numbers: Array) -> Array:
    """Return the place (N,) uint16 of every float16 number (N,) among all of them in order."""
    bits = np.ascontiguousarray(numbers, np.float16).view(np.uint16)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _number_at(place: int) -> float:
    bits = place & ~_SIGN if place & _SIGN else ~place & 0xFFFF
    return float(f"{float(np.array(bits, np.uint16).view(np.float16)):.4g}")
