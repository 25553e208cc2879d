"""The first stage of training: what every micro-step reads, of which data set. Here are order, resume and mixture.

webdataset shuffles by what was read before, and mixes sample by sample; it cannot go on in the middle, nor with another
number of processes. So what is read is decided here, from the number of the micro-step, before any shard is opened.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np

from datamodules.streaming.epoch_order import Dealer, EpochOrder, Run
from datamodules.streaming.loading import Workers
from datamodules.streaming.order import STEPS_PER_CHUNK, IntArray, Segment, drawn_steps, sources_of_steps
from datamodules.streaming.stream_order import SourceOrder, samples_consumed
from datamodules.streaming.streams import EpochReader
from datamodules.streaming.train_order import ORDER_VERSION, OpenSource, TrainOrder


@dataclass(frozen=True)
class Portion:
    """What one batch is read from.

    Attributes:
        source: index of the data set.
        stream: number of the stream of it.
        runs: what to read of that.
    """

    source: int
    stream: int
    runs: list[Run]


def micro_steps(
    order: TrainOrder, version: int, history: Sequence[Segment], workers: Workers, batch_size: int
) -> Iterator[Portion]:
    """Yield what this rank reads in every micro-step after the training so far, without end.

    Args:
        order: the order of training.
        version: its version.
        history: the training so far.
        workers: which of the processes that train together this is.
        batch_size: samples per rank and micro-step.
    """
    sources = _sources(order, version, history, workers, batch_size)
    start = sum(segment.micro_steps for segment in history)
    while True:
        drawn = sources_of_steps(order.seed, order.weights, start, start + STEPS_PER_CHUNK).tolist()
        for step, source in enumerate(drawn, start):
            yield Portion(source, *sources[source].take(step))
        start += STEPS_PER_CHUNK


class Readers:
    """The readers of all streams that a process reads, each at its start when it is first asked for.

    Args:
        order: the order of training.
        version: its version.
    """

    def __init__(self, order: TrainOrder, version: int) -> None:
        self._order, self._version = order, version
        self._readers: dict[tuple[int, int], EpochReader] = {}
        # One for all streams of a source: with many shards, it is large.
        self._orders: dict[int, EpochOrder | SourceOrder] = {}

    def of(self, portion: Portion) -> EpochReader:
        """Return the reader of a portion's stream.

        Args:
            portion: one that ``micro_steps`` yields.
        """
        place = portion.source, portion.stream
        if place not in self._readers:
            source = self._order.sources[portion.source]
            if portion.source not in self._orders:
                self._orders[portion.source] = _order_of(source, self._order, self._version)
            order = self._orders[portion.source].of_stream(portion.stream)
            self._readers[place] = EpochReader(source.dataset, source.shards, order, source.assembler.roles)
        return self._readers[place]


def _order_of(source: OpenSource, order: TrainOrder, version: int) -> EpochOrder | SourceOrder:
    shape = order.seed, source.name, source.shard_sizes
    return (
        EpochOrder(*shape, order.block_size)
        if version == ORDER_VERSION
        else SourceOrder(*shape, order.num_streams, order.block_size)
    )


def _sources(
    order: TrainOrder, version: int, history: Sequence[Segment], workers: Workers, batch_size: int
) -> "list[_EpochSteps] | list[_StreamSteps]":
    if version == ORDER_VERSION:
        return [_EpochSteps(order, index, history, workers, batch_size) for index in range(len(order.sources))]
    consumed = samples_consumed(order.seed, order.weights, order.num_streams, history)
    return [
        _StreamSteps(cast(SourceOrder, _order_of(source, order, version)), row, workers, batch_size)
        for source, row in zip(order.sources, consumed, strict=True)
    ]


class _EpochSteps:
    """Micro-steps that draw one source, in the order of ``epoch_order``."""

    def __init__(
        self, order: TrainOrder, index: int, history: Sequence[Segment], workers: Workers, batch_size: int
    ) -> None:
        draw, num_samples = partial(drawn_steps, order.seed, order.weights, index), order.sources[index].num_samples
        self._dealer = Dealer(draw, num_samples, order.num_streams, history, workers.world_size, batch_size)
        self._rank = workers.rank

    def take(self, step: int) -> tuple[int, list[Run]]:
        """Return stream and samples that this rank reads in the next of them."""
        return self._dealer.take_one(step, self._rank)


class _StreamSteps:
    """The same in the order of ``stream_order``, given the samples of every stream (streams,) that are used up."""

    def __init__(self, order: SourceOrder, consumed: IntArray, workers: Workers, batch_size: int) -> None:
        self._order, self._consumed, self._workers, self._batch_size = order, consumed, workers, batch_size

    def take(self, step: int) -> tuple[int, list[Run]]:
        world_size, count, num_streams = self._workers.world_size, self._batch_size, len(self._consumed)
        first = step * world_size
        stream = (first + self._workers.rank) % num_streams
        # With more ranks than streams, lower ranks take from the same stream first.
        position = int(self._consumed[stream]) + count * (self._workers.rank // num_streams)
        np.add.at(self._consumed, np.arange(first, first + world_size) % num_streams, count)
        return stream, self._order.runs(stream, position, count)
