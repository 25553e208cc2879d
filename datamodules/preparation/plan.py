"""Which sample goes to which shard: decided before the first one is read, the same on every machine."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

from datamodules.shards.codecs import IMAGE, codings_of
from datamodules.shards.manifest import DatasetManifest
from datamodules.sources.protocol import RawDataset
from geometry.errors import InputError

# What is written where nobody asks for another.
SHARD_FORMAT = 2


@dataclass(frozen=True)
class ShardOptions:
    """How samples are stored.

    Attributes:
        samples_per_shard: Samples in every shard but the last of a split; training reads a data set in as many parts at
            a time as it has shards, up to 48.
        image_format: jpg is small, png lossless.
        image_quality: JPEG quality from 1 to 100.
        seed: Seed of the order in which training frames go to shards.
        max_invalid_ratio: Leave out samples with a larger share of unknown pixels.
        shard_format: 2 is read faster: arrays are compressed with lz4hc, normals are stored as codes of 13 bits. 1 is
            what version 0.1 reads. By default 2, or what the data set in --output was begun with.
    """

    samples_per_shard: int = 256
    image_format: Literal["jpg", "png"] = "jpg"
    image_quality: int = 95
    seed: int = 0
    max_invalid_ratio: float = 1.0
    shard_format: Literal[1, 2] | None = None

    @property
    def array_format(self) -> int:
        """The shard format in use."""
        return self.shard_format or SHARD_FORMAT

    def described(self) -> dict[str, Any]:
        """Return the options as ``dataset.json`` has them: for shards of format 1, as before there was another."""
        described = {**vars(self), "shard_format": self.array_format}
        if self.array_format == 1:
            del described["shard_format"]
        return described


@dataclass(frozen=True)
class PlannedShard:
    """A shard to write.

    Attributes:
        split: its split.
        file: its path in the folder of the data set.
        frames: frames of the raw data set, in the order in which they are stored.
    """

    split: str
    file: str
    frames: list[Any]


@dataclass(frozen=True)
class Plan:
    """All shards of a data set: a pure function of the raw frames and the options.

    Attributes:
        manifest: ``dataset.json`` without its shards; ``plan_sha256`` stands for the frames and the options.
        shards: the shards of all splits, in order.
    """

    manifest: DatasetManifest
    shards: list[PlannedShard]

    @property
    def counts(self) -> dict[str, int]:
        """Number of shards by split."""
        return dict(Counter(shard.split for shard in self.shards))

    def part(self, number: int, parts: int) -> list[PlannedShard]:
        """Return every ``parts``-th shard, from the ``number``-th on (counted from 1).

        Raises:
            InputError: there is no such part.
        """
        if not 1 <= number <= parts:
            raise InputError(f"--part I/N needs 1 <= I <= N, not {number}/{parts}.")
        return self.shards[number - 1 :: parts]


def make_plan(raw: RawDataset, splits: dict[str, list[Any]], options: ShardOptions) -> Plan:
    """Return the plan for a raw data set.

    Args:
        raw: the raw data set.
        splits: its frames by split.
        options: how samples are stored.

    Returns:
        The plan.
    """
    members, size = [], options.samples_per_shard
    for split, frames in splits.items():
        ordered = shard_order(frames, options.seed) if split == "train" else list(frames)
        members.append([ordered[start : start + size] for start in range(0, len(ordered), size)])
    files = shard_files(raw.name, {split: len(shards) for split, shards in zip(splits, members, strict=True)})
    shards = [PlannedShard(*place, frames) for place, frames in zip(files, chain(*members), strict=True)]
    manifest = DatasetManifest(
        name=raw.name,
        image_size=raw.image_size,
        entries=(IMAGE, *raw.modalities),
        splits={},
        ranges=dict(raw.ranges),
        options={**raw.options(), **options.described()},
        codings={} if options.array_format == 1 else codings_of(raw.modalities),
    )
    content = [manifest.to_document(), [(shard.file, [frame.key for frame in shard.frames]) for shard in shards]]
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Plan(replace(manifest, plan_sha256=checksum), shards)


def shard_files(name: str, counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return split and file of every shard of a data set of that name, in order, from their number by split."""
    return [
        (split, f"{split}/{name}-{split}-{index:06d}.tar") for split, count in counts.items() for index in range(count)
    ]


def shard_order(frames: Sequence[Any], seed: int) -> list[Any]:
    """Return training frames in the order in which they are stored: every shard becomes a random subset.

    The order follows from the keys and the seed alone, on every machine and with every version of NumPy.

    Args:
        frames: frames with a ``key``.
        seed: any integer.

    Returns:
        The same frames, shuffled.
    """
    return sorted(frames, key=lambda frame: hashlib.sha256(f"{seed}/{frame.key}".encode()).digest())
