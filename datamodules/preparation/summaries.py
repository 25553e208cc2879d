"""A data set in a few numbers, for people at the terminal."""

from dataclasses import dataclass

from datamodules.shards.manifest import DatasetManifest
from geometry.errors import InputError


@dataclass(frozen=True)
class ModalitySummary:
    """Share of pixels with a known value, and the range of values where it is counted."""

    share: float
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class SplitSummary:
    """What was written for one split; counters are over samples."""

    split: str
    samples: int
    shards: int
    megabytes: float
    modalities: dict[str, ModalitySummary]
    counts: dict[str, int]


def summarize(manifest: DatasetManifest) -> list[SplitSummary]:
    """Return the summary of every split.

    Args:
        manifest: a manifest with statistics, as preparation writes them.

    Raises:
        InputError: the manifest has none: it was written by another program.
    """
    try:
        return [_summarize_split(manifest, split) for split in manifest.splits]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"data set {manifest.name!r} holds no statistics of its splits ({error}).") from error


def _summarize_split(manifest: DatasetManifest, split: str) -> SplitSummary:
    counted = manifest.statistics[split]
    counts = dict(counted["counts"])
    counts.update({name.replace("_", " "): len(counted[name]) for name in ("skipped", "left_out") if counted[name]})
    return SplitSummary(
        split,
        counted["samples"],
        len(manifest.splits[split]),
        counted["num_bytes"] / 1e6,
        {
            name: ModalitySummary(facts["share"], facts["min"], facts["max"])
            for name, facts in counted["modalities"].items()
        },
        counts,
    )
