"""The order of training: which samples make up which batch, as pure functions of a seed and of counts.

Words:
    A micro-step is one batch on every rank. All ranks read from the same source (data set) in the same micro-step.
    The shards of a source are dealt out, anew in every epoch, to a fixed number of virtual streams. A stream is the
    endless concatenation of what it got, shuffled within blocks that never cross an epoch.
    A position counts the samples of a stream from its start.

Nothing here depends on the number of ranks or workers, and nothing needs to be read to know where a position lies.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STREAM_COUNTS = (1, 2, 4, 6, 12, 24, 48)
STEPS_PER_CHUNK = 4096

IntArray = np.ndarray


def stable_hash(*parts: object) -> int:
    """Return 64 bits that depend on the text of all parts, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest(), "little")


def hash_sequence(seed: int, start: int, stop: int) -> IntArray:
    """Return 64 random bits for each of the numbers ``start .. stop - 1``, as uint64.

    Source:
        The finaliser of SplitMix64 (Steele, Lea and Flood, 2014), applied to a counter.
    """
    mixed = (np.arange(start, stop, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed += np.uint64(stable_hash(seed))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def sources_of_steps(seed: int, weights: Sequence[float], start: int, stop: int) -> IntArray:
    """Return the index of the source of every micro-step from ``start`` to ``stop - 1``.

    Args:
        seed: seed of the training order.
        weights: how often each source is drawn, relative to the others; positive.
        start: first micro-step.
        stop: one past the last micro-step.

    Returns:
        (stop - start,) int64. Over many steps, the shares are those of the weights.
    """
    uniform = (hash_sequence(stable_hash(seed, "source"), start, stop) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    boundaries = np.cumsum(np.asarray(weights, np.float64)) / np.sum(weights)
    return np.minimum(np.searchsorted(boundaries, uniform, side="right"), len(weights) - 1)


def count_streams(shard_counts: Sequence[int], max_streams: int) -> int:
    """Return the number of virtual streams: the largest of 1, 2, 4, 6, 12, 24, 48 that every source can fill.

    Args:
        shard_counts: number of shards of every source, at least 1.
        max_streams: upper bound.

    Returns:
        A number that many products of ranks and workers divide.
    """
    limit = min(*shard_counts, max_streams)
    return max(count for count in STREAM_COUNTS if count <= max(limit, 1))


@dataclass(frozen=True)
class Segment:
    """A part of the training during which batches were made in the same way.

    Attributes:
        micro_steps: number of micro-steps.
        world_size: number of ranks.
        batch_size: samples per rank and micro-step.
    """

    micro_steps: int
    world_size: int
    batch_size: int


def samples_consumed(seed: int, weights: Sequence[float], num_streams: int, history: Sequence[Segment]) -> IntArray:
    """Return how many samples of every stream were used up by the training so far.

    Rank r of micro-step g takes its batch from stream ``(g * world_size + r) mod num_streams`` of the step's source.

    Args:
        seed: seed of the training order.
        weights: weights of the sources.
        num_streams: number of virtual streams per source.
        history: the training so far.

    Returns:
        (sources, streams) int64.
    """
    consumed = np.zeros((len(weights), num_streams), np.int64)
    start = 0
    for segment in history:
        end = start + segment.micro_steps
        for first in range(start, end, STEPS_PER_CHUNK):
            last = min(first + STEPS_PER_CHUNK, end)
            sources = sources_of_steps(seed, weights, first, last)
            streams = np.arange(first * segment.world_size, last * segment.world_size) % num_streams
            np.add.at(consumed, (np.repeat(sources, segment.world_size), streams), segment.batch_size)
        start = end
    return consumed


@dataclass(frozen=True)
class ShardVisit:
    """A shard that a stream reads in some epoch.

    Attributes:
        shard: index of the shard in its source.
        start: position of its first sample in the stream.
        stop: position after its last sample.
    """

    shard: int
    start: int
    stop: int


@dataclass(frozen=True)
class Block:
    """A run of a stream's samples that are shuffled among themselves.

    Attributes:
        epoch: the epoch of the source that all of them belong to.
        start: position of the first.
        stop: position after the last.
    """

    epoch: int
    start: int
    stop: int


class SourceOrder:
    """The virtual streams of one source.

    Args:
        seed: seed of the training order.
        name: name of the source; two sources of equal shape differ by it.
        shard_sizes: samples in every shard.
        num_streams: number of streams.
        block_size: number of samples that are shuffled among themselves.
    """

    def __init__(self, seed: int, name: str, shard_sizes: Sequence[int], num_streams: int, block_size: int) -> None:
        self.num_streams = num_streams
        self._seed, self._name, self._block_size = seed, name, block_size
        self._shard_sizes = list(shard_sizes)
        self._num_epochs = 0
        # Per stream, in order: the shards it reads, and its share of every epoch as one block.
        self._visits: list[list[ShardVisit]] = [[] for _ in range(num_streams)]
        self._epochs: list[list[Block]] = [[] for _ in range(num_streams)]

    def visit_at(self, stream: int, position: int) -> ShardVisit:
        """Return the shard that holds a position of a stream."""
        self._deal_until(stream, position)
        visits = self._visits[stream]
        return visits[bisect_right(visits, position, key=lambda visit: visit.start) - 1]

    def block_at(self, stream: int, position: int) -> Block:
        """Return the block that holds a position of a stream."""
        self._deal_until(stream, position)
        epochs = self._epochs[stream]
        epoch = epochs[bisect_right(epochs, position, key=lambda block: block.start) - 1]
        start = epoch.start + (position - epoch.start) // self._block_size * self._block_size
        return Block(epoch.epoch, start, min(start + self._block_size, epoch.stop))

    def permutation(self, stream: int, block: Block) -> IntArray:
        """Return the order of the samples of a block: which of them, in storage order, comes first, second, ..."""
        seed = stable_hash(self._seed, self._name, "block", stream, block.start)
        return np.argsort(hash_sequence(seed, 0, block.stop - block.start), kind="stable")

    def _deal_until(self, stream: int, position: int) -> None:
        while not self._epochs[stream] or self._epochs[stream][-1].stop <= position:
            self._deal_epoch()

    def _deal_epoch(self) -> None:
        """Deal the next epoch: shards in random order, each to the stream with the fewest samples so far."""
        epoch, self._num_epochs = self._num_epochs, self._num_epochs + 1
        shuffled = np.argsort(
            hash_sequence(stable_hash(self._seed, self._name, "epoch", epoch), 0, len(self._shard_sizes))
        )
        ends = [visits[-1].stop if visits else 0 for visits in self._visits]
        starts = list(ends)
        for shard in shuffled.tolist():
            stream = min(range(self.num_streams), key=ends.__getitem__)
            visit = ShardVisit(shard, ends[stream], ends[stream] + self._shard_sizes[shard])
            self._visits[stream].append(visit)
            ends[stream] = visit.stop
        for stream, (start, end) in enumerate(zip(starts, ends, strict=True)):
            if end > start:
                self._epochs[stream].append(Block(epoch, start, end))


def even_subset(total: int, count: int | None) -> list[int]:
    """Return ``count`` of the numbers ``0 .. total - 1`` at even distances, all of them if there are fewer."""
    if count is None or count >= total:
        return list(range(total))
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]
