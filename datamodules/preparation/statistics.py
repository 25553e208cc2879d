"""What is worth knowing about many samples at once: counted exactly, so that parts add up to the same in any order."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from geometry.modalities.statistics import ValueStatistics


@dataclass
class SplitStatistics:
    """Counts over the samples of a split, or of a part of it.

    Attributes:
        samples: samples stored.
        num_bytes: bytes of their entries.
        modalities: counts over their values, by modality.
        counts: samples by where their camera and values come from ("camera scene", "normals native", ...).
        skipped: keys of the samples that could not be read.
        left_out: keys of the samples with too many invalid pixels.
    """

    samples: int = 0
    num_bytes: int = 0
    modalities: dict[str, ValueStatistics] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def add(self, other: "SplitStatistics") -> None:
        """Add the counts over other samples."""
        self.samples += other.samples
        self.num_bytes += other.num_bytes
        for name, counted in other.modalities.items():
            self.modalities.setdefault(name, ValueStatistics()).add(counted)
        self.counts.update(other.counts)
        self.skipped += other.skipped
        self.left_out += other.left_out

    def summary(self) -> dict[str, Any]:
        """Return what ``dataset.json`` says about the split: JSON values."""
        return {
            "samples": self.samples,
            "num_bytes": self.num_bytes,
            "modalities": {name: counted.summary() for name, counted in self.modalities.items()},
            "counts": dict(sorted(self.counts.items())),
            "skipped": self.skipped,
            "left_out": self.left_out,
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; ``from_json`` reads them."""
        return {
            **asdict(self),
            "modalities": {name: counted.to_json() for name, counted in self.modalities.items()},
            "counts": dict(sorted(self.counts.items())),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return the statistics that ``to_json`` wrote."""
        modalities = {name: ValueStatistics.from_json(counted) for name, counted in document["modalities"].items()}
        return cls(**{**document, "modalities": modalities, "counts": Counter(document["counts"])})
