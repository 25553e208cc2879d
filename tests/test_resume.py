"""A run that is stopped and started again ends as if nothing had happened: weights, optimiser, curves, bit by bit."""

import pytest

from tests import runs

KILLED, REQUEUE = -9, 75
TWO_WORKERS = "--data.num_workers=2"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runs.fit(folder, config) == [0], runs.log_of(folder)
    return folder


# An update takes 3 micro-batches, an epoch has 7: 7 is the middle of an epoch's first update, 13 its last batch.
@pytest.mark.parametrize(
    ("num_workers", "micro_steps"),
    [(3, (8, 16)), pytest.param(0, (7, 13), marks=pytest.mark.slow), pytest.param(1, (11, 19), marks=pytest.mark.slow)],
)
def test_a_killed_run_goes_on_to_the_same_end(tmp_path, config, undisturbed, num_workers, micro_steps):
    workers = f"--data.num_workers={num_workers}"
    for micro_step in micro_steps:
        assert runs.fit(tmp_path, config, workers, *runs.kill_at(micro_step)) == [KILLED], runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config, workers) == [0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


@pytest.mark.slow
def test_a_signal_ends_the_run_after_the_update_with_a_status_to_requeue_on(tmp_path, config, undisturbed):
    assert runs.fit(tmp_path, config, TWO_WORKERS, *runs.kill_at(7, "SIGUSR1")) == [REQUEUE], runs.log_of(tmp_path)
    assert runs.last(tmp_path)["global_step"] == 4, "the update under way is finished, and no other is begun"
    assert runs.fit(tmp_path, config, *runs.kill_at(17, "SIGTERM")) == [REQUEUE], runs.log_of(tmp_path)
    assert "stopped by SIGTERM after step 8" in runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config) == [0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


@pytest.mark.slow
def test_two_ranks_stop_together_though_one_was_told_and_end_with_one_that_dies(tmp_path, config):
    options = ("--data.num_workers=1", "--trainer.max_steps=6")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert runs.fit(whole, config, *options, world_size=2) == [0, 0], runs.log_of(whole)
    killed = runs.fit(broken, config, *options, *runs.kill_at(7, rank=1), world_size=2)
    assert killed[1] == KILLED and killed[0] not in (0, REQUEUE), runs.log_of(broken)
    told = runs.fit(broken, config, *options, *runs.kill_at(8, "SIGTERM", rank=1), world_size=2)
    assert told == [REQUEUE, 0], runs.log_of(broken)
    assert runs.fit(broken, config, *options, world_size=2) == [0, 0], runs.log_of(broken)
    runs.assert_same_end(broken, whole)
