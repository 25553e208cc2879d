"""Endless training batches from several data sets, in an order that a checkpoint can resume exactly."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datamodules.shards.manifest import Dataset, ShardInfo
from datamodules.streaming.augmentation import NO_AUGMENTATION, Augmentation, Change
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.epoch_order import Dealer, Draw, EpochOrder
from datamodules.streaming.loading import Delivery, Failure, Receiver, Workers, data_loader, end_processes
from datamodules.streaming.order import STEPS_PER_CHUNK, IntArray, Segment, sources_of_steps, stable_hash
from datamodules.streaming.packing import PackedBatch
from datamodules.streaming.source_batches import EpochBatches, Layout, SourceBatches, StreamBatches
from datamodules.streaming.stream_order import SourceOrder, samples_consumed
from datamodules.streaming.streams import StreamSample
from geometry.batch import GeometryBatch
from geometry.errors import InputError

# Versions of the order. Checkpoints hold theirs; those made before there were versions are of the first.
FIRST_ORDER_VERSION = 1
ORDER_VERSION = 2


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
    def shard_sizes(self) -> list[int]:
        """Number of samples in every shard."""
        return [shard.samples for shard in self.shards]

    @property
    def num_samples(self) -> int:
        """Number of training samples."""
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
    sources: tuple[TrainSource, ...]
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
        shapes = [
            (s.assembler.name, s.weight, [(shard.file, shard.samples) for shard in s.shards]) for s in self.sources
        ]
        return f"{stable_hash(self.seed, shapes, self.num_streams, self.block_size):016x}"


class _TrainBatches(IterableDataset):
    """Endless batches of one rank; each loader process makes every ``num_workers``-th of them."""

    def __init__(
        self, order: TrainOrder, version: int, history: list[Segment], batch_size: int, workers: Workers
    ) -> None:
        self._order, self._version, self._history = order, version, history
        self._batch_size, self._workers = batch_size, workers

    def __iter__(self) -> Iterator[Delivery | Failure]:
        try:
            yield from self._batches()
        except InputError as error:
            yield Failure(str(error))

    def _batches(self) -> Iterator[Delivery]:
        order, rank, world_size = self._order, self._workers.rank, self._workers.world_size
        worker = get_worker_info()
        worker_id, num_workers = (worker.id, worker.num_workers) if worker else (0, 1)
        layout = Layout(rank, world_size, self._batch_size)
        sources = _open_sources(order, self._version, self._history, layout)
        start = sum(segment.micro_steps for segment in self._history)
        for index, source in enumerate(_endless_sources(order, start)):
            if index % num_workers == worker_id:
                yield self._assemble(order.sources[source], sources[source].read(start + index))
            else:
                sources[source].skip(start + index)

    def _assemble(self, source: TrainSource, samples: list[StreamSample]) -> Delivery:
        name = source.assembler.name
        flips = [self._order.flips(name, item.epoch, item.sample.key) for item in samples]
        changes = [self._order.change(name, item.epoch, item.sample.key) for item in samples]
        is_off = self._order.augmentation.is_off
        return source.assembler.assemble([item.sample for item in samples], flips, None if is_off else changes)


def _endless_sources(order: TrainOrder, start: int) -> Iterator[int]:
    while True:
        yield from sources_of_steps(order.seed, order.weights, start, start + STEPS_PER_CHUNK).tolist()
        start += STEPS_PER_CHUNK


def _open_sources(order: TrainOrder, version: int, history: list[Segment], layout: Layout) -> list[SourceBatches]:
    """Return the batches of every source after the training so far. Nothing is opened before it is needed."""
    if version == ORDER_VERSION:
        return [_epoch_batches(order, index, history, layout) for index in range(len(order.sources))]
    consumed = samples_consumed(order.seed, order.weights, order.num_streams, history)
    return [_stream_batches(order, index, consumed[index], layout) for index in range(len(order.sources))]


def _epoch_batches(order: TrainOrder, index: int, history: list[Segment], layout: Layout) -> SourceBatches:
    source = order.sources[index]
    epochs = EpochOrder(order.seed, source.assembler.name, source.shard_sizes, order.block_size)
    draw = Draw(order.seed, order.weights, index)
    dealer = Dealer(draw, source.num_samples, order.num_streams, history, layout.world_size, layout.batch_size)
    return EpochBatches(source.dataset, source.shards, source.assembler.roles, epochs, dealer, layout.rank)


def _stream_batches(order: TrainOrder, index: int, consumed: IntArray, layout: Layout) -> SourceBatches:
    source = order.sources[index]
    name = source.assembler.name
    streams = SourceOrder(order.seed, name, source.shard_sizes, order.num_streams, order.block_size)
    return StreamBatches(source.dataset, source.shards, source.assembler.roles, streams, consumed, layout)


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
        self._version = ORDER_VERSION
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
                batches = _TrainBatches(self._order, self._version, self._segments(), self._batch_size, self._workers)
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
            "order_version": self._version,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the micro-steps of a saved state.

        A run goes on in the version of the order that it began with.

        Args:
            state: what ``state_dict`` returned.

        Raises:
            InputError: it is no such state, or one of a version that is not known.
        """
        self._version = state.get("order_version", FIRST_ORDER_VERSION)
        if self._version not in (FIRST_ORDER_VERSION, ORDER_VERSION):
            raise InputError(
                f"the checkpoint's training data are in order number {self._version}, which a newer version of this "
                "program made. Go on with that version, or start anew."
            )
        if self._version != ORDER_VERSION:
            rank_zero_info(
                "Data: this run began in the order of an earlier version and goes on in it. In an epoch of its data "
                "set a sample may come again before another came; runs started anew do not have that."
            )
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
                f"{self._history[-1].batch_size}. No sample of an epoch of its data set is lost or repeated. "
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
