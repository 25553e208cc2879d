"""What must not grow with ranks, shards or samples does not: counted, not timed."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

from datamodules.shards.manifest import MANY_SHARDS, Dataset, DatasetManifest, ShardInfo, read_dataset
from datamodules.streaming import epoch_order, micro_steps
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.epoch_order import Dealer
from datamodules.streaming.micro_steps import Portion, Readers
from datamodules.streaming.order import Segment, drawn_steps
from datamodules.streaming.train_order import ORDER_VERSION, OpenSource, TrainOrder
from geometry.files.limits import MAX_MANIFEST_BYTES


def dealer(num_samples, num_streams, world_size, batch_size, history=(), weights=(3.0, 1.0)):
    return Dealer(partial(drawn_steps, 7, weights, 0), num_samples, num_streams, list(history), world_size, batch_size)


def wanted_of_every_rank(found, step, offset, count):
    """Each rank of each step asked in turn: the definition."""
    per_step = found._world_size * found._batch_size
    steps = found._draw(step, -(-(offset + count) // per_step), step + epoch_order.DEAL_STEPS)
    wanted = np.zeros(found._num_streams, int)
    number = 0
    for drawn in steps.tolist():
        for rank in range(found._world_size):
            inside = range(max(number, offset), min(number + found._batch_size, offset + count))
            wanted[(drawn * found._world_size + rank) % found._num_streams] += len(inside)
            number += found._batch_size
    return wanted


@pytest.mark.parametrize("world_size", [1, 2, 7, 12, 30])
@pytest.mark.parametrize("num_streams", [1, 5, 12])
def test_streams_are_dealt_what_all_ranks_together_ask_for(world_size, num_streams):
    found = dealer(1000, num_streams, world_size, 3)
    first = int(found._draw(0, 1)[0])
    for offset, count in [(0, 1), (0, 3 * world_size), (2, 1), (3 * world_size - 1, 200), (1, 999), (0, 1000)]:
        np.testing.assert_array_equal(
            found._wanted(first, offset, count), wanted_of_every_rank(found, first, offset, count)
        )


@pytest.mark.parametrize("world_size", [1, 3, 4, 9, 17])
def test_one_rank_alone_is_given_what_it_is_given_among_all(world_size):
    history = [Segment(5, 2, 3), Segment(40, world_size, 2)]
    together = dealer(301, 4, world_size, 2, history)
    alone = [dealer(301, 4, world_size, 2, history) for _ in range(world_size)]
    for step in together._draw(45, 120).tolist():
        batches = together.take(step)
        assert [one.take_one(step, rank) for rank, one in enumerate(alone)] == batches


def test_with_512_ranks_a_step_costs_as_many_cuts_as_there_are_streams(monkeypatch):
    cuts, cut = [], epoch_order._cut
    monkeypatch.setattr(epoch_order, "_cut", lambda *args: (cuts.append(args), cut(*args))[1])
    found = dealer(10**9, 48, 512, 4)
    steps = found._draw(0, 21).tolist()
    found.take_one(steps[0], 300)  # deals the epoch
    cuts.clear()
    for step in steps[1:]:
        found.take_one(step, 300)
    assert len(cuts) <= 20 * 2 * 50


def test_an_epoch_of_a_billion_samples_is_dealt_to_512_ranks_in_little_memory():
    tracemalloc.start()
    try:
        found = dealer(10**9, 48, 512, 4)
        found.take_one(int(found._draw(0, 1)[0]), 511)
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def order_of(num_shards):
    shards = [ShardInfo(f"train/a-{number:06d}.tar", 100, "0" * 64) for number in range(num_shards)]
    manifest = DatasetManifest("a", (8, 8), ("image", "depth"), {"train": shards})
    source = OpenSource(Dataset("a", manifest), BatchAssembler("a", manifest, ("depth",)), 1.0, "train")
    return TrainOrder(0, (source,), 48, 100, 0.5)


def test_all_streams_of_a_source_share_one_order_and_its_shards(monkeypatch):
    made, order_class = [], micro_steps.EpochOrder
    monkeypatch.setattr(micro_steps, "EpochOrder", lambda *args: (made.append(args), order_class(*args))[1])
    order = order_of(500)
    readers = Readers(order, ORDER_VERSION)
    found = [readers.of(Portion(0, stream, ())) for stream in range(48)]
    assert len(made) == 1 and len(set(map(id, found))) == 48
    assert all(reader._shards is order.sources[0].shards for reader in found)


def test_a_list_of_100_000_shards_is_read(tmp_path):
    shards = [
        ShardInfo(f"train/hypersim-train-{number:06d}.tar", 10_000, f"{number:064x}") for number in range(100_000)
    ]
    DatasetManifest("hypersim", (8, 8), ("image", "depth"), {"train": shards}, {"depth": (0.1, 9.0)}).write(tmp_path)
    assert (tmp_path / "dataset.json").stat().st_size < 0.6 * MAX_MANIFEST_BYTES
    assert read_dataset(tmp_path).manifest.num_samples("train") == 10**9


def test_a_short_list_of_shards_is_laid_out_for_people(tmp_path):
    shards = [ShardInfo("train/a-0.tar", 1, "0" * 64)]
    DatasetManifest("a", (8, 8), ("image", "depth"), {"train": shards}, {"depth": (0.1, 9.0)}).write(tmp_path)
    assert len(shards) < MANY_SHARDS and "\n" in (tmp_path / "dataset.json").read_text().strip()
