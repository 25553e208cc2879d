"""The order of training: a sample of a data set comes once in an epoch before any of them comes again.

An epoch of a source is one sequence: its shards in random order, laid end to end, and shuffled within blocks. It is
dealt to the source's streams as consecutive ranges, each exactly as long as what the stream will be asked for until
the epoch ends: which micro-steps draw the source is known beforehand. So all streams reach the end of an epoch in the
same batch, whatever the numbers of shards and streams, and each reads its range forward.

The number of ranks or the batch size may change amid an epoch: what the streams still hold is then laid end to end
again and dealt anew. Everything follows from seed, data sets and the micro-steps taken so far.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from datamodules.streaming.order import (
    IntArray,
    Segment,
    hash_sequence,
    stable_hash,
)

# So many micro-steps are looked at to deal an epoch. The rest of one that lasts longer is dealt after them: a source
# that is drawn very rarely must not be looked for without end.
DEAL_STEPS = 1 << 20


class EpochOrder:
    """The sequence of samples in every epoch of one source.

    Args:
        seed: seed of the training order.
        name: name of the source; two sources of equal shape differ by it.
        shard_sizes: samples in every shard.
        block_size: number of neighbouring samples that are shuffled among themselves.
    """

    def __init__(self, seed: int, name: str, shard_sizes: Sequence[int], block_size: int) -> None:
        self.num_samples = sum(shard_sizes)
        self._seed, self._name, self._block_size = seed, name, block_size
        self._shard_sizes = np.asarray(shard_sizes)
        # Of two epochs: beside the end of one, some streams are in the next.
        self._layouts: dict[int, tuple[IntArray, IntArray]] = {}

    def of_stream(self, stream: int) -> Self:
        """Return the order of one stream: all take their samples from the one sequence."""
        return self

    def rest_of_block(self, position: int) -> range:
        """Return the positions from one on to the end of its block."""
        end = (position // self._block_size + 1) * self._block_size
        return range(position, min(end, self.num_samples))

    def stored(self, epoch: int, part: range) -> list[int]:
        """Return which samples stand at some positions of an epoch's sequence.

        Args:
            epoch: the epoch.
            part: positions, all of one block.

        Returns:
            The number of each sample in the epoch's shards laid end to end: to read forward, read in rising order.
        """
        block = part.start // self._block_size
        first = block * self._block_size
        length = min(self._block_size, self.num_samples - first)
        shuffled = np.argsort(self._hashes(length, "block", epoch, block), kind="stable")
        return (first + shuffled[part.start - first : part.stop - first]).tolist()

    def place(self, epoch: int, stored: int) -> tuple[int, int]:
        """Return the shard in which such a sample lies, and its number there."""
        shards, starts = self._shards(epoch)
        visit = int(np.searchsorted(starts, stored, side="right")) - 1
        return int(shards[visit]), stored - int(starts[visit])

    def _shards(self, epoch: int) -> tuple[IntArray, IntArray]:
        """Return the shards of an epoch in order, and the position of the first sample of each."""
        if epoch not in self._layouts:
            shards = np.argsort(self._hashes(len(self._shard_sizes), "epoch", epoch), kind="stable")
            sizes = self._shard_sizes[shards]
            while len(self._layouts) > 1:
                del self._layouts[min(self._layouts)]
            self._layouts[epoch] = shards, np.cumsum(sizes) - sizes
        return self._layouts[epoch]

    def _hashes(self, count: int, *parts: object) -> IntArray:
        return hash_sequence(stable_hash(self._seed, self._name, "order 2", *parts), 0, count)


@dataclass(frozen=True)
class Run:
    """Neighbours in the sequence of an epoch.

    Attributes:
        epoch: the epoch.
        start: position of the first.
        stop: position after the last.
        end: position up to which the stream that they come from goes on.
    """

    epoch: int
    start: int
    stop: int
    end: int


class Dealer:
    """Deals the epochs of a source to its streams, and the streams' samples to batches.

    Args:
        draw: returns the next micro-steps that draw the source: ``drawn_steps`` of it.
        num_samples: length of an epoch.
        num_streams: number of streams.
        history: the training so far.
        world_size: number of ranks from now on.
        batch_size: samples per rank and micro-step from now on.
    """

    def __init__(
        self,
        draw: Callable[..., IntArray],
        num_samples: int,
        num_streams: int,
        history: Sequence[Segment],
        world_size: int,
        batch_size: int,
    ) -> None:
        self._draw, self._num_samples, self._num_streams = draw, num_samples, num_streams
        self._shares: list[deque[range]] = [deque() for _ in range(num_streams)]
        self._undealt: deque[range] = deque()
        self._epoch, self._num_dealt = -1, 0
        self._world_size, self._batch_size = world_size, batch_size
        self._replay(history)
        self._lay_out(world_size, batch_size)

    def take(self, step: int) -> list[tuple[int, list[Run]]]:
        """Return the batches of the next micro-step that draws the source.

        Args:
            step: the micro-step.

        Returns:
            For every rank its stream, and its samples.
        """
        return [self._take(step, rank) for rank in range(self._world_size)]

    def take_one(self, step: int, rank: int) -> tuple[int, list[Run]]:
        """Return the batch of one rank of the next micro-step that draws the source.

        What the other ranks take is used up stream by stream, so that the time grows with the number of streams, which
        is limited, and not with that of ranks.

        Args:
            step: the micro-step.
            rank: the rank.
        """
        if self._num_dealt < self._world_size * self._batch_size or self._world_size <= self._num_streams:
            return self.take(step)[rank]
        first = step * self._world_size
        mine, batch = (first + rank) % self._num_streams, None
        for position in range(self._num_streams):
            stream = (first + position) % self._num_streams
            ranks = range(position, self._world_size, self._num_streams)
            if stream == mine:
                self._use_up(stream, ranks.index(rank) * self._batch_size)
                batch = self._take(step, rank)
                ranks = ranks[ranks.index(rank) + 1 :]
            self._use_up(stream, len(ranks) * self._batch_size)
        assert batch is not None, "every rank has a stream"
        return batch

    def _take(self, step: int, rank: int) -> tuple[int, list[Run]]:
        """Return stream and samples of a rank, after those of the ranks before."""
        stream, runs, missing = (step * self._world_size + rank) % self._num_streams, [], self._batch_size
        while missing:
            if not self._num_dealt:
                self._deal(step, (rank + 1) * self._batch_size - missing)
            part, end = _cut(self._shares[stream], min(missing, self._num_dealt))
            runs.append(Run(self._epoch, part.start, part.stop, end))
            self._num_dealt -= len(part)
            missing -= len(part)
        return stream, runs

    def _use_up(self, stream: int, count: int) -> None:
        """Pass over the next samples of a stream, all of which are dealt."""
        self._num_dealt -= count
        while count:
            count -= len(_cut(self._shares[stream], count)[0])

    def _deal(self, step: int, offset: int) -> None:
        """Deal the rest of the epoch, or the next one, from a sample of a micro-step on."""
        if not self._undealt:
            self._epoch += 1
            self._undealt.append(range(self._num_samples))
        counts = self._wanted(step, offset, sum(map(len, self._undealt)))
        for share, count in zip(self._shares, counts.tolist(), strict=True):
            while count:
                part, _ = _cut(self._undealt, count)
                share.append(part)
                count -= len(part)
        self._num_dealt = int(counts.sum())

    def _wanted(self, step: int, offset: int, count: int) -> IntArray:
        """Return how many of the next samples each stream is asked for.

        Args:
            step: a micro-step that draws the source.
            offset: first sample in it, over all ranks.
            count: number of samples; those beyond ``DEAL_STEPS`` micro-steps are left out.

        Returns:
            (streams,) int64.
        """
        per_step = self._world_size * self._batch_size
        steps = self._draw(step, -(-(offset + count) // per_step), step + DEAL_STEPS)
        wanted = np.zeros(self._num_streams, np.int64)
        # The first and the last step may be taken in part; those between are counted without looking at each rank.
        for number in sorted({0, len(steps) - 1}):
            before = number * per_step
            wanted += self._wanted_of_step(int(steps[number]), offset - before, offset + count - before)
        return wanted + self._batch_size * self._ranks_of_streams(steps[1:-1])

    def _wanted_of_step(self, step: int, start: int, stop: int) -> IntArray:
        """Return how many of the samples ``start .. stop - 1`` of a step each stream is asked for; (streams,) int64."""
        streams = (step * self._world_size + np.arange(self._world_size)) % self._num_streams
        starts = np.arange(self._world_size) * self._batch_size
        taken = np.clip(stop - starts, 0, self._batch_size) - np.clip(start - starts, 0, self._batch_size)
        return np.bincount(streams, taken, self._num_streams).astype(np.int64)

    def _ranks_of_streams(self, steps: IntArray) -> IntArray:
        """Return how many ranks of all these steps together each stream is asked by; (streams,) int64."""
        rounds, rest = divmod(self._world_size, self._num_streams)
        firsts = np.bincount(steps * self._world_size % self._num_streams, minlength=self._num_streams)
        counts = np.full(self._num_streams, rounds * len(steps), np.int64)
        for further in range(rest):
            counts += np.roll(firsts, further)
        return counts

    def _lay_out(self, world_size: int, batch_size: int) -> None:
        """Take back what the streams hold where it was dealt for other ranks or batches."""
        if self._num_dealt and (world_size, batch_size) != (self._world_size, self._batch_size):
            held = [part for share in self._shares for part in share]
            self._undealt.extendleft(reversed(held))
            self._shares, self._num_dealt = [deque() for _ in self._shares], 0
        self._world_size, self._batch_size = world_size, batch_size

    def _replay(self, history: Sequence[Segment]) -> None:
        """Go to the end of the training so far: over whole epochs at once, then through the last one."""
        ends = np.cumsum([0, *(segment.micro_steps for segment in history)]).tolist()
        steps = [
            self._draw(start, segment.micro_steps, end)
            for segment, start, end in zip(history, ends[:-1], ends[1:], strict=True)
        ]
        sizes = [len(drawn) * s.world_size * s.batch_size for drawn, s in zip(steps, history, strict=True)]
        finished = sum(sizes) // self._num_samples
        self._epoch, ahead = finished - 1, finished * self._num_samples
        for segment, drawn, size in zip(history, steps, sizes, strict=True):
            if ahead < size:
                self._lay_out(segment.world_size, segment.batch_size)
                self._skip(drawn, ahead, size)
            ahead = max(ahead - size, 0)

    def _skip(self, drawn: IntArray, start: int, stop: int) -> None:
        """Use up samples ``start .. stop - 1`` of those that a segment's drawn micro-steps take."""
        per_step = self._world_size * self._batch_size
        while start < stop:
            step, offset = int(drawn[start // per_step]), start % per_step
            if not self._num_dealt:
                self._deal(step, offset)
            count = min(stop - start, self._num_dealt)
            for share, wanted in zip(self._shares, self._wanted(step, offset, count).tolist(), strict=True):
                while wanted:
                    wanted -= len(_cut(share, wanted)[0])
            self._num_dealt -= count
            start += count


def _cut(parts: deque[range], count: int) -> tuple[range, int]:
    """Take up to so many positions away from the first of some ranges; return them, and where that range ends."""
    first = parts.popleft()
    if count < len(first):
        parts.appendleft(first[count:])
    return first[:count], first.stop
