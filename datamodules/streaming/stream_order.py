"""The order of runs that began before version 2 of the order: every stream has shards of its own.

The shards of a source are dealt out, anew in every epoch, to its streams. A stream is the endless concatenation of
what it got, shuffled within blocks that never cross an epoch. A position counts the samples of a stream from its start.

Streams of few shards reach the next epoch at different times, so a sample may come again before another came at all.
Such runs go on in this order to their end; nothing here may change. New runs use ``epoch_order``.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from datamodules.streaming.order import (
    STEPS_PER_CHUNK,
    IntArray,
    Segment,
    hash_sequence,
    sources_of_steps,
    stable_hash,
)


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
