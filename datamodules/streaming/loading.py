"""What the loaders for training and validation share: loader processes, and errors that cross them."""

from dataclasses import dataclass

import cv2
from torch.utils.data import DataLoader, IterableDataset

from geometry.batch import GeometryBatch
from geometry.errors import InputError


@dataclass(frozen=True)
class Workers:
    """How batches are made in the background.

    Attributes:
        rank: number of this process among those that train together.
        world_size: how many train together.
        num_workers: loader processes of this rank; 0 loads in the process itself.
        prefetch_factor: batches that every loader process prepares ahead.
        pin_memory: put batches into page-locked memory, for faster copies to a GPU.
    """

    rank: int = 0
    world_size: int = 1
    num_workers: int = 0
    prefetch_factor: int = 2
    pin_memory: bool = False


@dataclass(frozen=True)
class Failure:
    """An ``InputError`` on its way from a loader process to the trainer."""

    message: str


def data_loader(batches: IterableDataset, workers: Workers) -> DataLoader:
    """Return a loader of ready-made batches, with loader processes that live as long as it does."""
    in_background = workers.num_workers > 0
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers.num_workers,
        prefetch_factor=workers.prefetch_factor if in_background else None,
        persistent_workers=in_background,
        pin_memory=workers.pin_memory,
        worker_init_fn=_start_worker if in_background else None,
    )


def _start_worker(_worker_id: int) -> None:
    cv2.setNumThreads(0)


def unwrap(item: GeometryBatch | Failure) -> GeometryBatch:
    """Return a batch, or raise the error that took its place.

    Raises:
        InputError: with the message from the loader process.
    """
    if isinstance(item, Failure):
        raise InputError(item.message)
    return item
