"""The order of runs that began before version 2 of the order: every stream has shards of its own.

The shards of a source are dealt out, anew in every epoch, to its streams. A stream is the endless concatenation of
what it got, shuffled within blocks that never cross an epoch. A position counts the samples of a stream from its start.

Streams of few shards reach the next epoch at different times, so a sample may come again before another came at all.
Such runs go on in this order to their end; nothing here may change. New runs use ``epoch_order``.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from datamodules.streaming.epoch_order import Run
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


class ShardVisit(NamedTuple):
    """A shard that a stream reads in some epoch.

    Attributes:
        epoch: the epoch of the source.
        shard: index of the shard in its source.
        start: position of its first sample in the stream.
        stop: position after its last sample.
    """

    epoch: int
    shard: int
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
        self._visits: list[list[ShardVisit]] = [[] for _ in range(num_streams)]

    def of_stream(self, stream: int) -> "StreamOrder":
        """Return the order of one stream."""
        return StreamOrder(self, stream)

    def visit_at(self, stream: int, position: int) -> ShardVisit:
        """Return the shard that holds a position of a stream."""
        visits = self._visits[stream]
        while not visits or visits[-1].stop <= position:
            self._deal_epoch()
        return visits[bisect_right(visits, position, key=attrgetter("start")) - 1]

    def block_at(self, stream: int, position: int) -> Run:
        """Return the block that holds a position of a stream: samples of one epoch, shuffled among themselves."""
        epoch, visits = self.visit_at(stream, position).epoch, self._visits[stream]
        first = visits[bisect_left(visits, epoch, key=attrgetter("epoch"))].start
        last = visits[bisect_right(visits, epoch, key=attrgetter("epoch")) - 1].stop
        start = first + (position - first) // self._block_size * self._block_size
        stop = min(start + self._block_size, last)
        return Run(epoch, start, stop, stop)

    def runs(self, stream: int, position: int, count: int) -> list[Run]:
        """Return the next samples of a stream from a position on."""
        runs, end = [], position + count
        while position < end:
            block = self.block_at(stream, position)
            runs.append(replace(block, start=position, stop=min(block.stop, end)))
            position = runs[-1].stop
        return runs

    def take(self, consumed: IntArray, world_size: int, rank: int, batch_size: int, step: int) -> tuple[int, list[Run]]:
        """Return stream and samples of a rank in a micro-step; count them as used up in ``consumed`` (streams,)."""
        stream = (step * world_size + rank) % self.num_streams
        # With more ranks than streams, lower ranks take from the same stream first.
        position = int(consumed[stream]) + batch_size * (rank // self.num_streams)
        np.add.at(consumed, np.arange(step * world_size, (step + 1) * world_size) % self.num_streams, batch_size)
        return stream, self.runs(stream, position, batch_size)

    def permutation(self, stream: int, block: Run) -> IntArray:
        """Return the order of the samples of a block: which of them, in storage order, comes first, second, ..."""
        seed = stable_hash(self._seed, self._name, "block", stream, block.start)
        return np.argsort(hash_sequence(seed, 0, block.stop - block.start), kind="stable")

    def _deal_epoch(self) -> None:
        """Deal the next epoch: shards in random order, each to the stream with the fewest samples so far."""
        epoch, self._num_epochs = self._num_epochs, self._num_epochs + 1
        shuffled = np.argsort(
            hash_sequence(stable_hash(self._seed, self._name, "epoch", epoch), 0, len(self._shard_sizes))
        )
        ends = [visits[-1].stop if visits else 0 for visits in self._visits]
        for shard in shuffled.tolist():
            stream = min(range(self.num_streams), key=ends.__getitem__)
            visit = ShardVisit(epoch, shard, ends[stream], ends[stream] + self._shard_sizes[shard])
            self._visits[stream].append(visit)
            ends[stream] = visit.stop


@dataclass(frozen=True)
class StreamOrder:
    """The order of one stream, as ``EpochReader`` asks for it; a sample's number is its position in the stream."""

    source: SourceOrder
    stream: int

    def rest_of_block(self, position: int) -> range:
        """See ``EpochOrder``."""
        return range(position, self.source.block_at(self.stream, position).stop)

    def stored(self, epoch: int, part: range) -> list[int]:
        """See ``EpochOrder``."""
        block = self.source.block_at(self.stream, part.start)
        shuffled = block.start + self.source.permutation(self.stream, block)
        return shuffled[part.start - block.start : part.stop - block.start].tolist()

    def place(self, epoch: int, stored: int) -> tuple[int, int]:
        """See ``EpochOrder``."""
        visit = self.source.visit_at(self.stream, stored)
        return visit.shard, stored - visit.start
