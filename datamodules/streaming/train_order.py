"""What the order of training depends on: seed, data sets and their weights, streams, blocks."""

from dataclasses import dataclass

from datamodules.shards.manifest import Dataset, ShardInfo
from datamodules.streaming.augmentation import NO_AUGMENTATION, Augmentation, Change
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.order import stable_hash

# Versions of the order. Checkpoints hold theirs; those made before there were versions are of the first.
FIRST_ORDER_VERSION = 1
ORDER_VERSION = 2


@dataclass(frozen=True)
class OpenSource:
    """One data set that was found, and the split of it that is read.

    Attributes:
        dataset: where its shards are.
        assembler: makes its batches; carries its name.
        weight: how often training draws it, relative to the other sources.
        split: the split.
    """

    dataset: Dataset
    assembler: BatchAssembler
    weight: float
    split: str

    @property
    def name(self) -> str:
        """Name in logs and batches."""
        return self.assembler.name

    @property
    def shards(self) -> list[ShardInfo]:
        """Shards of the split."""
        return self.dataset.manifest.splits.get(self.split, [])

    @property
    def shard_sizes(self) -> list[int]:
        """Number of samples in every shard."""
        return [shard.samples for shard in self.shards]

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return sum(self.shard_sizes)


@dataclass(frozen=True)
class TrainOrder:
    """Everything that the order of training depends on, apart from how many ranks read how large batches.

    Attributes:
        seed: seed of order and flips.
        sources: the data sets.
        num_streams: virtual streams per source.
        block_size: samples that are shuffled among themselves.
        flip_probability: share of samples that are mirrored.
        augmentation: what else is changed in them.
    """

    seed: int
    sources: tuple[OpenSource, ...]
    num_streams: int
    block_size: int
    flip_probability: float
    augmentation: Augmentation = NO_AUGMENTATION

    @property
    def weights(self) -> list[float]:
        """Weights of the sources."""
        return [source.weight for source in self.sources]

    def flips(self, source: str, epoch: int, key: str) -> bool:
        """Return whether a sample is mirrored in an epoch of its source."""
        return stable_hash(self.seed, "flip", source, epoch, key) < self.flip_probability * 2.0**64

    def change(self, source: str, epoch: int, key: str) -> Change:
        """Return what else is changed in a sample in an epoch of its source."""
        return self.augmentation.draw(stable_hash(self.seed, "augmentation", source, epoch, key))

    def fingerprint(self) -> str:
        """Return a text that changes whenever the order of the same micro-steps would."""
        shapes = [(s.name, s.weight, [(shard.file, shard.samples) for shard in s.shards]) for s in self.sources]
        return f"{stable_hash(self.seed, shapes, self.num_streams, self.block_size):016x}"
