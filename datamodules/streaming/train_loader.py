"""Endless training batches from several data sets, in an order that a checkpoint can resume exactly."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from datamodules.streaming.loading import Delivery, Failure, Receiver, Workers, data_loader, end_processes
from datamodules.streaming.order import Segment
from datamodules.streaming.packing import PackedBatch
from datamodules.streaming.pipelines import train_pipeline
from datamodules.streaming.train_order import FIRST_ORDER_VERSION, ORDER_VERSION, TrainOrder
from geometry.batch import GeometryBatch
from geometry.errors import InputError


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
                batches = train_pipeline(self._order, self._version, self._segments(), self._batch_size, self._workers)
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
