import math
from types import SimpleNamespace

import torch

from lightning_modules.training.logging_steps import Means, is_logging_step


def test_every_nth_step_is_logged_and_zero_logs_none():
    logged = [step for step in range(1, 9) if is_logging_step(SimpleNamespace(log_every_n_steps=3), step)]
    assert logged == [3, 6]
    assert not is_logging_step(SimpleNamespace(log_every_n_steps=0), 3)


def test_means_are_taken_over_what_has_a_value_and_then_begin_anew():
    means = Means()
    means.add({"loss": torch.tensor(1.0), "loss_indoor": torch.tensor(1.0)})
    means.add({"loss": torch.tensor(2.0), "loss_outdoor": torch.tensor(2.0)})
    assert means.take() == {"loss": 1.5, "loss_indoor": 1.0, "loss_outdoor": 2.0}
    means.add({"loss": torch.tensor(7.0)})
    assert means.take() == {"loss": 7.0}


def test_a_skipped_step_does_not_spoil_the_curve():
    means = Means()
    for value in (1.0, torch.nan, torch.inf, 3.0):
        means.add({"loss": torch.tensor(value)})
    assert means.take() == {"loss": 2.0}
    means.add({"loss": torch.tensor(torch.nan)})
    assert math.isnan(means.take()["loss"])


def test_means_survive_another_number_of_ranks_and_count_every_micro_batch_once():
    ranks = [{"loss": (3.0, 2.0)}, {"loss": (5.0, 1.0), "loss_indoor": (5.0, 1.0)}]
    states = []
    for rank in range(3):
        means = Means()
        means.restore(ranks, rank, 3)
        states += means.state()
    assert states == [{"loss": (8.0, 3.0), "loss_indoor": (5.0, 1.0)}, {}, {}]
    same = Means()
    same.restore(ranks, 1, 2)
    assert same.state() == [ranks[1]]


def test_no_graph_is_kept_alive():
    means, weight = Means(), torch.ones(1, requires_grad=True)
    means.add({"loss": weight.sum()})
    assert not any(tensor.requires_grad for pair in means._sums.values() for tensor in pair)
