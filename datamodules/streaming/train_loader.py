"""Endless training batches from several data sets, in an order that a checkpoint can resume exactly."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.shards.manifest import Dataset, ShardInfo
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.loading import Delivery, Failure, Receiver, Workers, data_loader, end_processes
from datamodules.streaming.order import (
    STEPS_PER_CHUNK,
    Segment,
    SourceOrder,
    samples_consumed,
    sources_of_steps,
    stable_hash,
)
from datamodules.streaming.packing import PackedBatch
from datamodules.streaming.streams import StreamReader
from geometry.batch import GeometryBatch
from geometry.errors import InputError


@dataclass(frozen=True)
class TrainSource:
    """One data set that training draws from.

    Attributes:
        dataset: where its shards are.
        assembler: makes its batches; carries its name.
        weight: how often it is drawn, relative to the other sources.
        shards: shards of its training split.
    """

    dataset: Dataset
    assembler: BatchAssembler
    weight: float
    shards: tuple[ShardInfo, ...]

    @property
    def num_samples(self) -> int:
        """Number of training samples."""
        return sum(shard.samples for shard in self.shards)


@dataclass(frozen=True)
class TrainOrder:
    """Everything that the order of training depends on, apart from how many ranks read how large batches.

    Attributes:
        seed: seed of order and flips.
        sources: the data sets.
        num_streams: virtual streams per source.
        block_size: samples that are shuffled among themselves.
        flip_probability: share of samples that are mirrored.
    """

    seed: int
    sources: tuple[TrainSource, ...]
    num_streams: int
    block_size: int
    flip_probability: float

    @property
    def weights(self) -> list[float]:
        """Weights of the sources."""
        return [source.weight for source in self.sources]

    def flips(self, source: str, epoch: int, key: str) -> bool:
        """Return whether a sample is mirrored in an epoch of its source."""
        return stable_hash(self.seed, "flip", source, epoch, key) < self.flip_probability * 2.0**64

    def fingerprint(self) -> str:
        """Return a text that changes whenever the order of the same micro-steps would."""
        shapes = [
            (s.assembler.name, s.weight, [(shard.file, shard.samples) for shard in s.shards]) for s in self.sources
        ]
        return f"{stable_hash(self.seed, shapes, self.num_streams, self.block_size):016x}"


class _TrainBatches(IterableDataset):
    """Endless batches of one rank; each loader process makes every ``num_workers``-th of them."""

    def __init__(self, order: TrainOrder, history: list[Segment], batch_size: int, workers: Workers) -> None:
        self._order, self._history, self._batch_size, self._workers = order, history, batch_size, workers

    def __iter__(self) -> Iterator[Delivery | Failure]:
        try:
            yield from self._batches()
        except InputError as error:
            yield Failure(str(error))

    def _batches(self) -> Iterator[Delivery]:
        order, rank, world_size = self._order, self._workers.rank, self._workers.world_size
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        consumed = samples_consumed(order.seed, order.weights, order.num_streams, self._history)
        start = sum(segment.micro_steps for segment in self._history)
        sources = [_SourceStreams(order, source) for source in order.sources]
        for index, source in enumerate(_endless_sources(order, start)):
            first = (start + index) * world_size
            if index % num_workers == worker_id:
                stream = (first + rank) % order.num_streams
                # With more ranks than streams, lower ranks take from the same stream first.
                position = consumed[source, stream] + self._batch_size * (rank // order.num_streams)
                yield sources[source].batch(stream, int(position), self._batch_size)
            streams = np.arange(first, first + world_size) % order.num_streams
            np.add.at(consumed[source], streams, self._batch_size)


def _endless_sources(order: TrainOrder, start: int) -> Iterator[int]:
    while True:
        yield from sources_of_steps(order.seed, order.weights, start, start + STEPS_PER_CHUNK).tolist()
        start += STEPS_PER_CHUNK


class _SourceStreams:
    """The virtual streams of one source, opened as they are needed."""

    def __init__(self, order: TrainOrder, source: TrainSource) -> None:
        self._order, self._source = order, source
        sizes = [shard.samples for shard in source.shards]
        name = source.assembler.name
        self._streams = SourceOrder(order.seed, name, sizes, order.num_streams, order.block_size)
        self._readers: dict[int, StreamReader] = {}

    def batch(self, stream: int, position: int, batch_size: int) -> Delivery:
        source, assembler = self._source, self._source.assembler
        if stream not in self._readers:
            reader = StreamReader(source.dataset, list(source.shards), self._streams, stream, assembler.roles)
            self._readers[stream] = reader
        read = self._readers[stream].read(position, batch_size)
        flips = [self._order.flips(assembler.name, item.epoch, item.sample.key) for item in read]
        return assembler.assemble([item.sample for item in read], flips)


class TrainLoader:
    """Batches for training, in an order that a checkpoint can resume exactly.

    The state is the number of micro-steps taken (with the ranks and batch sizes they were taken with), so that it is
    the same on every rank. One endless iterator lives across the trainer's epochs.

    Args:
        order: what the order depends on.
        batch_size: samples per rank and micro-step.
        batches_per_epoch: micro-steps that the trainer counts as one epoch.
        workers: how batches are made in the background.
    """

    def __init__(self, order: TrainOrder, batch_size: int, batches_per_epoch: int, workers: Workers) -> None:
        self._order, self._batch_size, self._workers = order, batch_size, workers
        self._batches_per_epoch = batches_per_epoch
        self._history: list[Segment] = []
        self._steps_since_load = 0
        self._receiver = Receiver(workers.max_bad_samples, workers.packed)
        self._loader: DataLoader | None = None
        # Not named _iterator: Lightning shuts down what it finds under that name.
        self._stream: Iterator[Delivery | Failure] | None = None

    def __len__(self) -> int:
        return self._batches_per_epoch

    def __iter__(self) -> Iterator[GeometryBatch | PackedBatch]:
        for _ in range(len(self)):
            if self._stream is None:
                batches = _TrainBatches(self._order, self._segments(), self._batch_size, self._workers)
                self._loader = data_loader(batches, self._workers)
                self._stream = iter(self._loader)
            batch = self._receiver.next(self._stream)
            assert batch is not None, "training batches are endless"
            self._steps_since_load += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the number of micro-steps handed out, the same on every rank."""
        segments = self._segments()
        return {
            "micro_step": sum(segment.micro_steps for segment in segments),
            "history": [asdict(segment) for segment in segments],
            "order": self._order.fingerprint(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the micro-steps of a saved state.

        Args:
            state: what ``state_dict`` returned.

        Raises:
            InputError: it is no such state.
        """
        self._history = _history_in(state)
        self._steps_since_load = 0
        self._loader = self._stream = None
        if state["order"] != self._order.fingerprint():
            rank_zero_warn(
                "The training data are not those of the checkpoint (seed, data sets, weights, shards or shuffle buffer "
                f"differ): training goes on at micro-step {state['micro_step']} of another order, so some samples come "
                "twice or not at all within this epoch."
            )
        now = (self._workers.world_size, self._batch_size)
        if self._history and (self._history[-1].world_size, self._history[-1].batch_size) != now:
            rank_zero_info(
                f"Data: continuing with {now[0]} ranks x {now[1]} samples after {self._history[-1].world_size} x "
                f"{self._history[-1].batch_size}. Every stream goes on where it was: no sample is lost or repeated. "
                "Not preserved: which samples meet in a batch, and with it the result to the last bit."
            )

    def close(self) -> None:
        """End the loader processes; the next iteration starts new ones where these stopped."""
        self._history, self._steps_since_load = self._segments(), 0
        if self._loader is not None:
            end_processes(self._loader)
        self._loader = self._stream = None

    def _segments(self) -> list[Segment]:
        """Return the training so far; equal neighbours are joined, so that many restarts leave one segment."""
        history = list(self._history)
        current = Segment(self._steps_since_load, self._workers.world_size, self._batch_size)
        if history and (history[-1].world_size, history[-1].batch_size) == (current.world_size, current.batch_size):
            history[-1] = Segment(history[-1].micro_steps + current.micro_steps, current.world_size, current.batch_size)
        elif current.micro_steps:
            history.append(current)
        return history


def _history_in(state: dict[str, Any]) -> list[Segment]:
    try:
        history = [Segment(**segment) for segment in state["history"]]
        counts = [count for segment in history for count in asdict(segment).values()]
        is_right = all(type(count) is int and count >= 0 for count in [*counts, state["micro_step"]])
    except (KeyError, TypeError):
        is_right = False
    if not is_right or not isinstance(state.get("order"), str):
        raise InputError("the checkpoint's state of the training data is not one of this project. Use another one.")
    return history
