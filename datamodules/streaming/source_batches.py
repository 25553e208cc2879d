"""Micro-batches of one source for one rank, in either version of the order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from datamodules.shards.manifest import Dataset, ShardInfo
from datamodules.streaming.epoch_order import Dealer, EpochOrder
from datamodules.streaming.order import IntArray
from datamodules.streaming.stream_order import SourceOrder
from datamodules.streaming.streams import EpochReader, StreamReader, StreamSample


@dataclass(frozen=True)
class Layout:
    """How a micro-step is made of batches.

    Attributes:
        rank: number of this process among those that train together.
        world_size: how many train together.
        batch_size: samples per rank and micro-step.
    """

    rank: int
    world_size: int
    batch_size: int


class SourceBatches(Protocol):
    """The batches of one source. Every micro-step that draws it is either read or skipped, in order."""

    def read(self, step: int) -> list[StreamSample]:
        """Return this rank's samples of a micro-step.

        Raises:
            InputError: a shard cannot be opened or read.
        """
        ...

    def skip(self, step: int) -> None:
        """Leave a micro-step to another loader process."""
        ...


class EpochBatches:
    """Batches in the order of ``epoch_order``.

    Args:
        dataset: the data set.
        shards: shards of its training split.
        roles: entries to read.
        order: sequence of the epochs.
        dealer: what deals it.
        rank: number of this process among those that train together.
    """

    def __init__(
        self,
        dataset: Dataset,
        shards: Sequence[ShardInfo],
        roles: Collection[str],
        order: EpochOrder,
        dealer: Dealer,
        rank: int,
    ) -> None:
        self._dataset, self._shards, self._roles = dataset, list(shards), roles
        self._order, self._dealer, self._rank = order, dealer, rank
        self._readers: dict[int, EpochReader] = {}

    def read(self, step: int) -> list[StreamSample]:
        """Return this rank's samples of a micro-step; see ``SourceBatches``."""
        stream, runs = self._dealer.take(step)[self._rank]
        if stream not in self._readers:
            self._readers[stream] = EpochReader(self._dataset, self._shards, self._order, self._roles)
        return self._readers[stream].read(runs)

    def skip(self, step: int) -> None:
        """Leave a micro-step to another loader process."""
        self._dealer.take(step)


class StreamBatches:
    """Batches in the order of ``stream_order``.

    Args:
        dataset: the data set.
        shards: shards of its training split.
        roles: entries to read.
        order: the streams.
        consumed: (streams,) samples of every stream that were used up.
        layout: how a micro-step is made of batches.
    """

    def __init__(
        self,
        dataset: Dataset,
        shards: Sequence[ShardInfo],
        roles: Collection[str],
        order: SourceOrder,
        consumed: IntArray,
        layout: Layout,
    ) -> None:
        self._dataset, self._shards, self._roles = dataset, list(shards), roles
        self._order, self._consumed, self._layout = order, consumed, layout
        self._readers: dict[int, StreamReader] = {}

    def read(self, step: int) -> list[StreamSample]:
        """Return this rank's samples of a micro-step; see ``SourceBatches``."""
        layout, num_streams = self._layout, self._order.num_streams
        stream = (step * layout.world_size + layout.rank) % num_streams
        if stream not in self._readers:
            self._readers[stream] = StreamReader(self._dataset, self._shards, self._order, stream, self._roles)
        # With more ranks than streams, lower ranks take from the same stream first.
        position = int(self._consumed[stream]) + layout.batch_size * (layout.rank // num_streams)
        self.skip(step)
        return self._readers[stream].read(position, layout.batch_size)

    def skip(self, step: int) -> None:
        """Leave a micro-step to another loader process."""
        first, world_size = step * self._layout.world_size, self._layout.world_size
        np.add.at(
            self._consumed, np.arange(first, first + world_size) % self._order.num_streams, self._layout.batch_size
        )
