from collections import Counter
from functools import partial

import numpy as np
import pytest

from datamodules.streaming import epoch_order
from datamodules.streaming.epoch_order import Dealer, EpochOrder
from datamodules.streaming.order import Segment, drawn_steps, sources_of_steps

DEMO = [32] * 16 + [28]


class Run:
    """Training on one of two sources, as far as the order goes."""

    def __init__(self, sizes, num_streams, weights=(1.0,), source=0, block_size=8):
        self.order = EpochOrder(0, "a", sizes, block_size)
        self.weights, self.source, self.num_streams = weights, source, num_streams
        self.history = []

    def samples(self, micro_steps, world_size=1, batch_size=8):
        """Go on, as after a restart: for each step a list of ranks, of (stream, [(epoch, position), ...])."""
        draw = partial(drawn_steps, 0, self.weights, self.source)
        dealer = Dealer(draw, self.order.num_samples, self.num_streams, self.history, world_size, batch_size)
        start = sum(segment.micro_steps for segment in self.history)
        drawn = sources_of_steps(0, self.weights, start, start + micro_steps) == self.source
        steps = [dealer.take(start + int(step)) for step in np.flatnonzero(drawn)]
        self._remember(Segment(micro_steps, world_size, batch_size))
        return [
            [(stream, [(run.epoch, p) for run in runs for p in range(run.start, run.stop)]) for stream, runs in ranks]
            for ranks in steps
        ]

    def _remember(self, segment):
        if self.history and (self.history[-1].world_size, self.history[-1].batch_size) == (
            segment.world_size,
            segment.batch_size,
        ):
            segment = Segment(self.history.pop().micro_steps + segment.micro_steps, *list(vars(segment).values())[1:])
        self.history.append(segment)


def flat(steps):
    return [place for ranks in steps for _, places in ranks for place in places]


def assert_epochs_are_whole(places, length):
    """Every sample of an epoch comes once before any of the next epoch comes."""
    for epoch in range(len(places) // length + 1):
        part = places[epoch * length : (epoch + 1) * length]
        assert {e for e, _ in part} <= {epoch}
        assert len({position for _, position in part}) == len(part)


@pytest.mark.parametrize("sizes", [DEMO, [5, 9, 1, 4, 4, 7, 300], [1, 1], [2], [1000, 1]])
@pytest.mark.parametrize("num_streams", [1, 2, 12, 48])
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 8), (3, 2), (50, 1), (2, 70)])
def test_a_sample_comes_once_before_any_comes_twice(sizes, num_streams, world_size, batch_size):
    length = sum(sizes)
    steps = 3 * length // (world_size * batch_size) + 2
    assert_epochs_are_whole(flat(Run(sizes, num_streams).samples(steps, world_size, batch_size)), length)


@pytest.mark.parametrize("source", [0, 1])
def test_a_sample_comes_once_in_a_mixture_where_streams_are_drawn_unevenly(source):
    places = flat(Run(DEMO, 12, (9.0, 1.0), source).samples(4000, 2, 3))
    assert len(places) > 2 * sum(DEMO)
    assert_epochs_are_whole(places, sum(DEMO))


@pytest.mark.parametrize("cuts", [[1], [67], [68, 1], [3, 64, 1, 100], [135, 70]])
@pytest.mark.parametrize("weights", [(1.0,), (2.0, 1.0)])
def test_a_restart_at_any_step_changes_nothing(cuts, weights):
    whole = Run(DEMO, 12, weights).samples(sum(cuts) + 90, 2, 3)
    resumed = Run(DEMO, 12, weights)
    assert [step for count in [*cuts, 90] for step in resumed.samples(count, 2, 3)] == whole


LAYOUTS = [(30, 1, 8), (5, 3, 8), (20, 2, 1), (1, 8, 5), (40, 1, 8), (0, 2, 2), (90, 1, 8)]


@pytest.mark.parametrize("weights", [(1.0,), (2.0, 1.0)])
def test_other_ranks_and_batches_on_the_way_lose_and_repeat_no_sample(weights):
    run = Run(DEMO, 12, weights)
    places = flat([step for layout in LAYOUTS for step in run.samples(*layout)])
    assert len(places) > sum(DEMO)
    assert_epochs_are_whole(places, sum(DEMO))


def test_a_restart_after_a_change_of_ranks_changes_nothing():
    whole, resumed = Run(DEMO, 12, (2.0, 1.0)), Run(DEMO, 12, (2.0, 1.0))
    for run in (whole, resumed):
        run.samples(17, 1, 8)
        run.samples(11, 3, 2)
    assert resumed.samples(9, 2, 4) + resumed.samples(120, 2, 4) == whole.samples(129, 2, 4)


def test_a_source_that_is_drawn_too_rarely_to_look_ahead_is_still_dealt_whole(monkeypatch):
    monkeypatch.setattr(epoch_order, "DEAL_STEPS", 50)
    whole = Run(DEMO, 12, (9.0, 1.0), 1).samples(3000, 1, 4)
    assert_epochs_are_whole(flat(whole), sum(DEMO))
    resumed = Run(DEMO, 12, (9.0, 1.0), 1)
    assert [step for count in (733, 20, 2247) for step in resumed.samples(count, 1, 4)] == whole


def test_a_stream_is_the_one_that_the_step_and_rank_say_and_goes_forward():
    last = {}
    for step, ranks in enumerate(Run([32] * 48, 12).samples(190, 2, 4)):
        for rank, (stream, places) in enumerate(ranks):
            assert stream == (2 * step + rank) % 12
            assert places == sorted(places) and places[0] > last.get(stream, (-1, 0))
            last[stream] = places[-1]


def test_streams_share_few_shards_so_that_little_is_read_twice():
    order = EpochOrder(0, "a", [64] * 96, 32)
    readers = {}
    for ranks in Run([64] * 96, 12).samples(96 * 64 // 8, 1, 8):
        for stream, places in ranks:
            for _, position in places:
                stored = order.stored(0, range(position, position + 1))[0]
                readers.setdefault(order.place(0, stored)[0], set()).add(stream)
    assert sum(len(streams) - 1 for streams in readers.values()) < 12


def stored_sequence(order, epoch):
    places, position = [], 0
    while position < order.num_samples:
        block = order.rest_of_block(position)
        places += [order.place(epoch, stored) for stored in order.stored(epoch, block)]
        position = block.stop
    return places


@pytest.mark.parametrize("block_size", [1, 4, 7, 1000])
@pytest.mark.parametrize("sizes", [[5, 5, 5, 5], [3, 9, 1, 4, 4, 7]])
def test_the_sequence_of_an_epoch_holds_every_sample_once_and_differs_from_others(sizes, block_size):
    order = EpochOrder(0, "a", sizes, block_size)
    sequences = [stored_sequence(order, epoch) for epoch in range(3)]
    everything = {(shard, index) for shard, size in enumerate(sizes) for index in range(size)}
    assert all(len(sequence) == len(everything) and set(sequence) == everything for sequence in sequences)
    others = [EpochOrder(1, "a", sizes, block_size), EpochOrder(0, "b", sizes, block_size)]
    sequences += [stored_sequence(other, 0) for other in others]
    assert len(set(map(tuple, sequences))) == 5


def test_a_part_of_a_block_is_what_the_block_has_there():
    order = EpochOrder(0, "a", [10, 20, 30], 16)
    assert order.stored(2, range(19, 27)) == order.stored(2, range(16, 32))[3:11]


def test_the_order_of_a_seed_never_changes_between_releases():
    # A change here breaks the exact resume of every run that is under way.
    assert stored_sequence(EpochOrder(0, "a", [3, 2, 3], 5), 0) == [
        (1, 1),
        (1, 0),
        (0, 1),
        (0, 2),
        (0, 0),
        (2, 1),
        (2, 0),
        (2, 2),
    ]
    positions = [position for _, position in flat(Run([3, 2, 3], 2, (2.0, 1.0)).samples(12, 1, 2))]
    assert positions == [2, 3, 4, 5, 0, 1, 6, 7, 0, 1, 2, 3]


def test_resuming_near_the_end_of_the_papers_schedule_goes_on_in_the_right_epoch():
    # 20,000 updates of 16 micro-steps on 8 ranks, all of Hypersim.
    dealer = Dealer(partial(drawn_steps, 0, [9, 1], 0), 233 * 256, 48, [Segment(320_000, 8, 2)], 8, 2)
    epochs = Counter(run.epoch for _, runs in dealer.take(320_001) for run in runs)
    assert set(epochs) == {320_000 * 16 * 9 // 10 // (233 * 256)}
