"""Ctrl-C, a closed terminal, a second run in the same folder, a full disk: nothing is lost, and a line says what is."""

import shutil

import pytest

from geometry.files.locks import sole_use
from tests.helpers import runs

runs.start_server()

MISTAKE, REQUEUE, STOPPED = 2, 75, 130


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.prepare(tmp_path_factory.mktemp("data"), max_steps=6)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runs.fit(folder, config) == [0], runs.log_of(folder)
    return folder


def test_ctrl_c_and_a_closed_terminal_save_and_the_run_goes_on_to_the_same_end(tmp_path, config, undisturbed):
    stopped = runs.fit(tmp_path, config, "--data.num_workers=2", *runs.kill_at(4, "SIGINT"))
    assert stopped == [STOPPED], runs.log_of(tmp_path)
    assert runs.last(tmp_path)["global_step"] == 2, "the update under way is finished"
    assert "Once more leaves at once" in runs.log_of(tmp_path)
    assert "stopped by SIGINT after step 2" in runs.log_of(tmp_path)
    assert "attempting graceful shutdown" not in runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config, *runs.kill_at(11, "SIGHUP")) == [REQUEUE], runs.log_of(tmp_path)
    assert runs.fit(tmp_path, config) == [0], runs.log_of(tmp_path)
    runs.assert_same_end(tmp_path, undisturbed)


def test_a_second_ctrl_c_leaves_at_once(tmp_path, config):
    twice = [*runs.kill_at(10, "SIGINT"), *runs.kill_at(10, "SIGINT")]
    assert runs.fit(tmp_path, config, *twice) == [STOPPED], runs.log_of(tmp_path)
    assert "stopped by SIGINT at once" in runs.log_of(tmp_path)
    assert runs.last(tmp_path)["global_step"] == 4, "the last checkpoint that was due"


def test_ctrl_c_outside_steps_says_that_nothing_is_lost(tmp_path, config):
    assert runs.fit(tmp_path, config, *runs.signal_outside_steps("before", "SIGINT")) == [STOPPED]
    assert "all that was trained is saved" in runs.log_of(tmp_path)


def test_a_validation_that_is_stopped_says_so(tmp_path, config, undisturbed):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    signal = runs.signal_outside_steps("after", "SIGINT")
    (process,) = runs.start(tmp_path, config, *signal, command="validate")
    process.join(runs.TIMEOUT_S)
    assert process.exitcode == STOPPED, runs.log_of(tmp_path)
    assert runs.log_of(tmp_path).rstrip().splitlines()[-1].startswith("Stopped.")


def test_a_run_that_another_process_is_writing_is_refused_and_left_alone(tmp_path, config, undisturbed):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "tiny/version_0"
    before = (run / "config.yaml").read_text()
    with sole_use(run / "checkpoints"):
        assert runs.fit(tmp_path, config, "--trainer.max_steps=7") == [MISTAKE], runs.log_of(tmp_path)
    assert "checkpoints is in use by process" in runs.log_of(tmp_path)
    assert (run / "config.yaml").read_text() == before
    assert runs.last(tmp_path)["global_step"] == 6


def test_the_curves_of_a_run_that_goes_on_still_are_left_alone(tmp_path, config):
    own = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    own.append("--trainer.logger.name=tiny")
    assert runs.fit(tmp_path, config, *own) == [0], runs.log_of(tmp_path)
    run = tmp_path / "tiny/version_0"
    before = (run / "metrics.csv").read_text()
    with sole_use(run / "checkpoints"):
        assert runs.fit(tmp_path, config, "--trainer.max_steps=7", *own) == [MISTAKE], runs.log_of(tmp_path)
    assert (run / "metrics.csv").read_text() == before
    assert not list(run.glob("metrics_*")), "put aside, so that the other run counts no rows"
    assert "will be deleted" not in runs.log_of(tmp_path)


def test_a_disk_that_is_full_from_the_first_step_on_is_one_line(tmp_path, config):
    # Room enough for what the run prints into a file, and not for its curves.
    options = [*runs.fill_disk_at(0), "--trainer.callbacks.max_bytes=4000"]
    assert runs.fit(tmp_path, config, *options) == [MISTAKE], runs.log_of(tmp_path)
    assert "Traceback" not in runs.log_of(tmp_path)
    assert "File too large" in runs.log_of(tmp_path)
