"""A run that is stopped and started again ends as if nothing had happened: weights, optimiser, curves, bit by bit."""

import shutil

import pytest

from tests.helpers import runs

runs.start_server()

KILLED, MISTAKE, REQUEUE = -9, 2, 75
TWO_WORKERS = "--data.num_workers=2"
# One rank has fewer batches to validate than the other.
TWO_RANKS = ("--data.num_workers=1", "--trainer.max_steps=6", "--data.val_batch_size=1")
SHARDED = ("--trainer.strategy.class_path=lightning_modules.FullySharded",)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runs.fit(folder, config) == [0], runs.log_of(folder)
    return folder


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("two-ranks")
    assert runs.fit(folder, config, *TWO_RANKS, world_size=2) == [0, 0], runs.log_of(folder)
    return folder


# An update takes 3 micro-batches, an epoch has 7: 7 is the middle of an epoch's first update, 13 its last batch.
def test_a_run_that_is_killed_fills_the_disk_and_loses_a_checkpoint_goes_on_to_the_same_end(
    tmp_path, config, undisturbed
):
    # With other numbers of loader processes every time, which change nothing either.
    assert runs.fit(tmp_path, config, "--data.num_workers=3", *runs.kill_at(8)) == [KILLED], runs.log_of(tmp_path)
    full = runs.fit(tmp_path, config, "--data.num_workers=1", *runs.fill_disk_at(14))
    assert full == [MISTAKE] and "last.ckpt cannot be written (File too large)" in runs.log_of(tmp_path)
    assert runs.last(tmp_path)["global_step"] == 6, "the older checkpoint is intact"
    runs.damage_last(tmp_path)
    assert runs.fit(tmp_path, config, "--data.num_workers=0") == [0], runs.log_of(tmp_path)
    assert "last.ckpt is damaged" in runs.log_of(tmp_path) and "Going on from previous.ckpt" in runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(("num_workers", "micro_steps"), [(0, (7, 13)), (1, (11, 19)), (3, (8, 16))])
def test_a_killed_run_goes_on_to_the_same_end(tmp_path, config, undisturbed, num_workers, micro_steps):
    workers = f"--data.num_workers={num_workers}"
    for micro_step in micro_steps:
        assert runs.fit(tmp_path, config, workers, *runs.kill_at(micro_step)) == [KILLED], runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config, workers) == [0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


def test_a_signal_ends_the_run_after_the_update_with_a_status_to_requeue_on(tmp_path, config, undisturbed):
    assert runs.fit(tmp_path, config, TWO_WORKERS, *runs.kill_at(7, "SIGUSR1")) == [REQUEUE], runs.log_of(tmp_path)
    assert runs.last(tmp_path)["global_step"] == 4, "the update under way is finished, and no other is begun"
    assert runs.fit(tmp_path, config, *runs.kill_at(17, "SIGTERM")) == [REQUEUE], runs.log_of(tmp_path)
    assert "stopped by SIGTERM after step 8" in runs.log_of(tmp_path)
    # In the last micro-step there is nothing left to come back for.
    assert runs.fit(tmp_path, config, *runs.kill_at(20, "SIGTERM")) == [0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


def test_a_signal_outside_steps_ends_the_run_at_once_with_a_status_to_requeue_on(tmp_path, config, undisturbed):
    for moment, name in (("before", "SIGTERM"), ("after", "SIGUSR1"), ("before", "SIGUSR1"), ("after", "SIGTERM")):
        status = runs.fit(tmp_path, config, *runs.signal_outside_steps(moment, name))
        assert status == [REQUEUE], runs.log_of(tmp_path)
        assert f"stopped by {name} while no step was under way" in runs.log_of(tmp_path)
    assert runs.last(tmp_path)["global_step"] == 9, "what was trained is saved"
    assert runs.fit(tmp_path, config) == [0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


def test_a_validation_that_is_told_to_stop_does_not_pass_for_complete(tmp_path, config, undisturbed):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    signal = runs.signal_outside_steps("after", "SIGTERM")
    (process,) = runs.start(tmp_path, config, *signal, command="validate")
    process.join(runs.TIMEOUT_S)
    assert process.exitcode == 128 + 15, runs.log_of(tmp_path)


def test_a_run_that_is_stopped_at_the_ends_of_two_epochs_counts_them_once_each(tmp_path, config, undisturbed):
    for last_of_an_epoch in (6, 13):
        status = runs.fit(tmp_path, config, *runs.kill_at(last_of_an_epoch, "SIGTERM"))
        assert status == [REQUEUE], runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config) == [0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


def test_two_ranks_stop_together_though_one_was_told_and_end_with_one_that_dies(tmp_path, config, two_ranks):
    killed = runs.fit(tmp_path, config, *TWO_RANKS, *runs.kill_at(7, rank=1), world_size=2)
    assert killed[1] == KILLED and killed[0] not in (0, REQUEUE), runs.log_of(tmp_path)
    told = runs.fit(tmp_path, config, *TWO_RANKS, *runs.kill_at(8, "SIGTERM", rank=1), world_size=2)
    assert told == [REQUEUE, 0], runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config, *TWO_RANKS, world_size=2) == [0, 0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, two_ranks)


def test_sharded_weights_learn_what_unsharded_ones_learn_and_survive_a_kill(tmp_path, config, two_ranks):
    killed = runs.fit(tmp_path, config, *TWO_RANKS, *SHARDED, *runs.kill_at(8, rank=1), world_size=2)
    assert killed[1] == KILLED and killed[0] not in (0, REQUEUE), runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config, *TWO_RANKS, *SHARDED, world_size=2) == [0, 0], runs.log_of(tmp_path)
    runs.assert_close_end(tmp_path, two_ranks)


@pytest.mark.slow
def test_sharded_weights_resume_to_the_bit_and_under_every_other_strategy(tmp_path, config, two_ranks):
    whole, killed, other, alone = (tmp_path / name for name in ("whole", "killed", "other", "alone"))
    assert runs.fit(whole, config, *TWO_RANKS, *SHARDED, world_size=2) == [0, 0], runs.log_of(whole)
    told = runs.fit(killed, config, *TWO_RANKS, *SHARDED, *runs.kill_at(8, "SIGTERM", rank=1), world_size=2)
    assert told == [REQUEUE, 0], runs.log_of(killed)
    for copy in (other, alone):
        shutil.copytree(killed, copy)
    assert runs.fit(killed, config, *TWO_RANKS, *SHARDED, world_size=2) == [0, 0], runs.log_of(killed)
    runs.assert_same_end(killed, whole)
    assert runs.fit(other, config, *TWO_RANKS, world_size=2) == [0, 0], runs.log_of(other)
    runs.assert_close_end(other, two_ranks)
    assert runs.fit(alone, config, *TWO_RANKS) == [0], runs.log_of(alone)
    assert "continuing with 1 ranks x 2 samples after 2 x 2" in runs.log_of(alone)
