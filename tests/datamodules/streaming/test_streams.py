import dataclasses
import re

import pytest

from datamodules.shards.manifest import ShardInfo
from datamodules.streaming.epoch_order import EpochOrder, Run
from datamodules.streaming.stream_order import SourceOrder
from datamodules.streaming.streams import EpochReader, ShardReader
from geometry.errors import InputError
from tests.helpers.planes import make_dataset

SIZES = [3, 4, 2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("planes"), shards={"train": SIZES})


def reader_of(dataset, stream=0, block_size=4, num_streams=1):
    order = SourceOrder(0, "planes", SIZES, num_streams, block_size)
    reader = EpochReader(dataset, dataset.manifest.splits["train"], order.of_stream(stream), ("depth",))
    return order, stream, reader


def read(order_and_reader, position, count):
    order, stream, reader = order_and_reader
    return [(item.epoch, item.sample.key) for item in reader.read(order.runs(stream, position, count))]


def test_an_epoch_of_a_stream_holds_every_sample_once(dataset):
    samples = read(reader_of(dataset), 0, 18)
    for epoch in (0, 1):
        assert sorted(key for e, key in samples if e == epoch) == [f"train-{i:04d}" for i in range(9)]


@pytest.mark.parametrize("start", [1, 3, 4, 8, 9, 13, 40])
def test_a_start_in_the_middle_gives_what_reading_from_the_beginning_gives(dataset, start):
    assert read(reader_of(dataset), start, 10) == read(reader_of(dataset), 0, 60)[start : start + 10]


def test_positions_may_be_left_out_on_the_way(dataset):
    everything, reader = read(reader_of(dataset), 0, 40), reader_of(dataset)
    for start in (0, 2, 7, 8, 21, 39):
        assert read(reader, start, 1) == everything[start : start + 1]


def test_shards_before_the_start_are_not_even_opened(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": SIZES})
    order = SourceOrder(0, "planes", SIZES, 1, 1)
    first, second = order.visit_at(0, 0), order.visit_at(0, order.visit_at(0, 0).stop)
    (tmp_path / dataset.manifest.splits["train"][first.shard].file).unlink()
    assert len(read(reader_of(dataset, block_size=1), second.start, 1)) == 1
    with pytest.raises(InputError, match="cannot be read"):
        read(reader_of(dataset, block_size=1), 0, 1)


@pytest.mark.parametrize(
    ("listed", "message"), [(2, "holds more samples, dataset.json lists 2"), (4, "only 3 samples.*lists 4")]
)
def test_a_shard_with_another_number_of_samples_is_named(dataset, listed, message):
    shard = dataclasses.replace(dataset.manifest.splits["train"][0], samples=listed)
    reader = ShardReader(dataset, ("depth",))
    *good, last = [reader.read(0, shard, index) for index in range(listed)]
    assert re.search(rf"000000\.tar.*{message}", last.problem)
    assert not any(sample.problem for sample in good)


def test_samples_can_be_read_again_and_in_any_order(dataset):
    shard: ShardInfo = dataset.manifest.splits["train"][1]
    reader = ShardReader(dataset, ("depth",))
    assert [reader.read(0, shard, index).key[-1] for index in (2, 0, 0, 3)] == ["5", "3", "3", "6"]


def epoch_reader(dataset, block_size=4):
    order = EpochOrder(0, "planes", SIZES, block_size)
    return EpochReader(dataset, dataset.manifest.splits["train"], order, ("depth",)), order


def expected_keys(order, epoch):
    """Keys in the sequence of an epoch; those of shard s begin after the samples of the shards before it."""
    keys, position = [], 0
    while position < order.num_samples:
        block = order.rest_of_block(position)
        places = [order.place(epoch, stored) for stored in order.stored(epoch, block)]
        keys += [f"train-{sum(SIZES[:shard]) + index:04d}" for shard, index in places]
        position = block.stop
    return keys


@pytest.mark.parametrize("block_size", [1, 4, 100])
def test_a_stream_reads_what_it_is_dealt_across_blocks_shards_and_epochs(dataset, block_size):
    reader, order = epoch_reader(dataset, block_size)
    runs = [Run(0, 2, 3, 9), Run(0, 3, 8, 9), Run(1, 1, 5, 5), Run(1, 7, 9, 9)]
    sequences = [expected_keys(order, epoch) for epoch in range(2)]
    assert [(item.epoch, item.sample.key) for item in reader.read(runs)] == [
        (run.epoch, sequences[run.epoch][position]) for run in runs for position in range(run.start, run.stop)
    ]


def test_a_stream_reads_nothing_of_a_block_but_its_own_part(dataset, monkeypatch):
    reader, order = epoch_reader(dataset, 9)
    read, original = [], ShardReader.read
    monkeypatch.setattr(ShardReader, "read", lambda self, *args: read.append(args) or original(self, *args))
    assert len(reader.read([Run(0, 3, 4, 6)])) == 1
    assert len(read) == 3
    stored = [order.place(0, number) for number in range(9)]
    visited = [stored.index((visit[1], index)) for visit, _, index in read]
    assert visited == sorted(visited)
