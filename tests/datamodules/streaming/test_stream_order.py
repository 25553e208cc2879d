"""The order of runs that began before version 2: it may never change."""

import time
from collections import Counter

import numpy as np
import pytest

from datamodules.streaming.order import Segment, sources_of_steps
from datamodules.streaming.stream_order import SourceOrder, samples_consumed


def read_streams(order, sizes, until):
    """(epoch, shard, index) of every position of every stream, in order."""
    streams = []
    for stream in range(order.num_streams):
        samples, position = [], 0
        while position < until:
            block = order.block_at(stream, position)
            stored = []
            for place in range(block.start, block.stop):
                visit = order.visit_at(stream, place)
                stored.append((block.epoch, visit.shard, place - visit.start))
            samples += [stored[index] for index in order.permutation(stream, block)]
            position = block.stop
        streams.append(samples)
    return streams


@pytest.mark.parametrize("block_size", [1, 4, 7, 1000])
@pytest.mark.parametrize("sizes", [[5, 5, 5, 5], [3, 9, 1, 4, 4, 7]])
def test_every_sample_comes_exactly_once_in_every_epoch(sizes, block_size):
    order = SourceOrder(0, "a", sizes, 4, block_size)
    seen = Counter(sample for stream in read_streams(order, sizes, 60) for sample in stream)
    everything = [(shard, index) for shard, size in enumerate(sizes) for index in range(size)]
    for epoch in range(5):
        assert all(seen[epoch, shard, index] == 1 for shard, index in everything)


def test_epochs_do_not_mix_within_a_stream():
    for stream in read_streams(SourceOrder(0, "a", [3, 9, 1, 4], 2, 4), [3, 9, 1, 4], 50):
        epochs = [epoch for epoch, _, _ in stream]
        assert epochs == sorted(epochs)


def test_streams_advance_together_so_that_no_sample_is_seen_much_more_often_than_another():
    # 60 shards of 10 on 48 streams: dealing them out in turn would give 12 streams twice as much as the others.
    order = SourceOrder(0, "a", [10] * 60, 48, 64)
    epochs = [order.block_at(stream, 10_000).epoch for stream in range(48)]
    assert max(epochs) - min(epochs) <= 1


def test_the_order_differs_between_epochs_streams_and_sources():
    sizes = [16, 16]
    first, second = read_streams(SourceOrder(0, "a", sizes, 2, 16), sizes, 32)
    other = read_streams(SourceOrder(0, "b", sizes, 2, 16), sizes, 32)[0]
    orders = [[index for _, _, index in part] for part in (first[:16], first[16:32], second[:16], other[:16])]
    assert len({tuple(order) for order in orders}) == 4


def test_a_block_is_really_shuffled():
    block_order = SourceOrder(0, "a", [64], 1, 64)
    permutation = block_order.permutation(0, block_order.block_at(0, 0))
    assert sorted(permutation) == list(range(64))
    assert np.abs(permutation - np.arange(64)).mean() > 10


def count_by_hand(weights, num_streams, history):
    consumed, step = np.zeros((len(weights), num_streams), int), 0
    for segment in history:
        for _ in range(segment.micro_steps):
            source = sources_of_steps(0, weights, step, step + 1)[0]
            for rank in range(segment.world_size):
                consumed[source, (step * segment.world_size + rank) % num_streams] += segment.batch_size
            step += 1
    return consumed


@pytest.mark.parametrize(
    "history",
    [
        [Segment(37, 1, 2)],
        [Segment(10, 3, 2)],
        [Segment(4, 9, 1)],
        [Segment(7, 1, 4), Segment(5, 2, 2)],
        [Segment(5000, 1, 1)],
    ],
)
def test_what_was_used_up_follows_from_the_number_of_steps_alone(history):
    np.testing.assert_array_equal(samples_consumed(0, [9, 1], 6, history), count_by_hand([9, 1], 6, history))


def test_resuming_near_the_end_of_the_papers_schedule_takes_no_time():
    # 20,000 updates of 16 micro-steps on 8 ranks, all of Hypersim in shards of 256.
    start = time.perf_counter()
    consumed = samples_consumed(0, [9, 1], 48, [Segment(320_000, 8, 2)])
    order = SourceOrder(0, "hypersim", [256] * 233, 48, 64)
    blocks = [order.block_at(stream, int(consumed[0, stream])) for stream in range(48)]
    assert time.perf_counter() - start < 5
    assert {block.epoch for block in blocks} <= set(range(75, 81))
