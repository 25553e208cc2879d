"""Validation batches: the same ones every time, dealt out to the ranks."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch.utils.data import DataLoader

from datamodules.streaming.loading import Receiver, Workers, data_loader, end_processes
from datamodules.streaming.order import even_subset
from datamodules.streaming.packing import PackedBatch
from datamodules.streaming.pipelines import val_pipeline
from datamodules.streaming.train_order import OpenSource
from geometry.batch import GeometryBatch


@dataclass
class ValLoader:
    """The same validation batches every time, without shuffling, flips or repetition.

    Batch j goes to rank ``j mod world_size``; ranks may get different numbers of batches.

    Attributes:
        source: the data set and the split to read.
        batch_size: samples per batch; the last batch may be smaller.
        max_samples: take that many samples at even distances; None takes all.
        workers: how batches are made in the background.
    """

    source: OpenSource
    batch_size: int
    max_samples: int | None
    workers: Workers
    _loader: DataLoader | None = field(default=None, init=False, repr=False)
    _receiver: Receiver = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._receiver = Receiver(self.workers.max_bad_samples, self.workers.packed)

    def __len__(self) -> int:
        # Lightning leaves a rank without batches out of the validation, and the others then wait for its sums.
        return max(1, len(self.batch_indices()))

    def __iter__(self) -> Iterator[GeometryBatch | PackedBatch]:
        if self._loader is None:
            batches = val_pipeline(self.source, self.batch_indices())
            self._loader = data_loader(batches, self.workers)
        stream = iter(self._loader)
        while (batch := self._receiver.next(stream)) is not None:
            yield batch

    def close(self) -> None:
        """End the loader processes; the next iteration starts new ones."""
        if self._loader is not None:
            end_processes(self._loader)
        self._loader = None

    def batch_indices(self) -> list[list[int]]:
        """Return, for every batch of this rank, the indices of its samples in the split."""
        chosen = even_subset(self.source.num_samples, self.max_samples)
        batches = [chosen[first : first + self.batch_size] for first in range(0, len(chosen), self.batch_size)]
        return batches[self.workers.rank :: self.workers.world_size]
