"""From shards to batches: the ``webdataset.DataPipeline`` of training, and that of validation."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

import numpy as np
import webdataset
from torch.utils.data import get_worker_info

from datamodules.shards.manifest import Dataset
from datamodules.shards.samples import EncodedSample
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.loading import Delivery, Failure, Workers
from datamodules.streaming.micro_steps import Portion, Readers, micro_steps
from datamodules.streaming.order import Segment
from datamodules.streaming.streams import ShardReader, StreamSample
from datamodules.streaming.train_order import OpenSource, TrainOrder
from geometry.errors import InputError

Item = TypeVar("Item")


def train_pipeline(
    order: TrainOrder, version: int, history: Sequence[Segment], batch_size: int, workers: Workers
) -> webdataset.DataPipeline:
    """Return the batches of one rank without end; each loader process makes every ``num_workers``-th of them.

    Args:
        order: the order of training.
        version: its version.
        history: the training so far.
        batch_size: samples per rank and micro-step.
        workers: how batches are made in the background.

    Returns:
        A pipeline that yields ``Delivery``, and a ``Failure`` at its end if it has one.
    """
    return webdataset.DataPipeline(
        partial(micro_steps, order, version, history, workers, batch_size),
        for_this_process,
        partial(read_portions, order=order, version=version),
        webdataset.map(partial(make_train_batch, order)),
        end_with_failure,
    )


def val_pipeline(source: OpenSource, batches: Sequence[Sequence[int]]) -> webdataset.DataPipeline:
    """Return the validation batches of one rank; each loader process makes every ``num_workers``-th of them.

    Args:
        source: the data set and the split to read.
        batches: for every batch the numbers of its samples in the split.

    Returns:
        A pipeline that yields what ``train_pipeline`` does.
    """
    return webdataset.DataPipeline(
        partial(iter, batches),
        for_this_process,
        partial(read_numbers, dataset=source.dataset, split=source.split, roles=source.assembler.roles),
        webdataset.map(partial(make_val_batch, source.assembler)),
        end_with_failure,
    )


def for_this_process(items: Iterable[Item]) -> Iterator[Item]:
    """Keep what falls to this loader process: ``webdataset.split_by_worker``, but blind to ``WORKER`` and ``RANK``."""
    worker = get_worker_info()
    return islice(items, worker.id, None, worker.num_workers) if worker else iter(items)


def read_portions(
    portions: Iterable[Portion], order: TrainOrder, version: int
) -> Iterator[tuple[OpenSource, list[StreamSample]]]:
    """Read the samples of batches, undecoded, from as many streams side by side as there are.

    Every stream reads forward, one shard after the other (``shards.samples.scan_shard``), and shuffles in blocks.
    """
    readers = Readers(order, version)
    for portion in portions:
        yield order.sources[portion.source], readers.of(portion).read(portion.runs)


def read_numbers(
    batches: Iterable[Sequence[int]], dataset: Dataset, split: str, roles: Collection[str]
) -> Iterator[list[EncodedSample]]:
    """Read the samples of batches, undecoded, by their numbers in the split."""
    shards = dataset.manifest.splits.get(split, [])
    shard_of = np.repeat(np.arange(len(shards)), [shard.samples for shard in shards])
    starts = np.cumsum([0, *(shard.samples for shard in shards)])
    reader = ShardReader(dataset, roles)
    for numbers in batches:
        places = [(int(shard_of[number]), number) for number in numbers]
        yield [reader.read(place, shards[place], number - int(starts[place])) for place, number in places]


def make_train_batch(order: TrainOrder, batch: tuple[OpenSource, list[StreamSample]]) -> Delivery:
    """Decode the samples of a batch and pack them, mirrored and changed as the order says."""
    (source, items), name = batch, batch[0].name
    flips = [order.flips(name, item.epoch, item.sample.key) for item in items]
    changes = None
    if not order.augmentation.is_off:
        changes = [order.change(name, item.epoch, item.sample.key) for item in items]
    return source.assembler.assemble([item.sample for item in items], flips, changes)


def make_val_batch(assembler: BatchAssembler, samples: Sequence[EncodedSample]) -> Delivery:
    """Decode the samples of a batch and pack them as they are."""
    return assembler.assemble(samples, [False] * len(samples))


def end_with_failure(batches: Iterable[Delivery]) -> Iterator[Delivery | Failure]:
    """Turn an ``InputError`` of the stages before into the last item: exceptions lose their class between processes."""
    try:
        yield from batches
    except InputError as error:
        yield Failure(str(error))
