"""The first stage of training: what every micro-step reads, of which data set. Here are order, resume and mixture.

webdataset shuffles by what was read before, and mixes sample by sample; it cannot go on in the middle, nor with another
number of processes. So what is read is decided here, from the number of the micro-step, before any shard is opened.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from datamodules.streaming.epoch_order import Dealer, EpochOrder, Run
from datamodules.streaming.loading import Workers
from datamodules.streaming.order import STEPS_PER_CHUNK, Segment, drawn_steps, sources_of_steps
from datamodules.streaming.stream_order import SourceOrder, samples_consumed
from datamodules.streaming.streams import EpochReader
from datamodules.streaming.train_order import ORDER_VERSION, OpenSource, TrainOrder

# From a micro-step to a stream and what is read of it.
Taker = Callable[[int], tuple[int, list[Run]]]


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
    takers = _takers(order, version, history, workers, batch_size)
    start = sum(segment.micro_steps for segment in history)
    while True:
        drawn = sources_of_steps(order.seed, order.weights, start, start + STEPS_PER_CHUNK).tolist()
        for step, source in enumerate(drawn, start):
            yield Portion(source, *takers[source](step))
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
    if version != ORDER_VERSION:
        return _streams_of(source, order)
    return EpochOrder(order.seed, source.name, source.shard_sizes, order.block_size)


def _streams_of(source: OpenSource, order: TrainOrder) -> SourceOrder:
    return SourceOrder(order.seed, source.name, source.shard_sizes, order.num_streams, order.block_size)


def _takers(
    order: TrainOrder, version: int, history: Sequence[Segment], workers: Workers, batch_size: int
) -> list[Taker]:
    """Return, for every source, what says which stream and samples this rank reads in the next micro-step of it."""
    if version != ORDER_VERSION:
        consumed = samples_consumed(order.seed, order.weights, order.num_streams, history)
        mine, rows = (workers.world_size, workers.rank, batch_size), zip(order.sources, consumed, strict=True)
        return [partial(_streams_of(source, order).take, row, *mine) for source, row in rows]
    takers: list[Taker] = []
    for index, source in enumerate(order.sources):
        draw = partial(drawn_steps, order.seed, order.weights, index)
        dealer = Dealer(draw, source.num_samples, order.num_streams, history, workers.world_size, batch_size)
        takers.append(partial(dealer.take_one, rank=workers.rank))
    return takers
