"""A run that goes on with other settings: what is taken, what is refused, and curves as of an undisturbed run."""

import shutil

import pytest
import yaml

from tests.helpers import runs

runs.start_server()

MISTAKE = 2
SHORT = ("--trainer.max_steps=2", "--trainer.limit_val_batches=0", "--model.decay_steps=9")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return runs.prepare(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def short(tmp_path_factory, config):
    """A run of two steps of three micro-batches."""
    folder = tmp_path_factory.mktemp("short")
    assert runs.fit(folder, config, *SHORT) == [0], runs.log_of(folder)
    return folder


@pytest.fixture
def copy(tmp_path, short):
    return shutil.copytree(short, tmp_path / "copy")


@pytest.mark.parametrize(
    ("interval", "ends"), [(7, (3, 6)), (6, (2,)), (10, (4,))], ids=["ends of epochs", "step 2", "step 4"]
)
def test_a_run_that_is_extended_has_the_end_and_curves_of_one_in_one_go(tmp_path, config, interval, ends):
    # After 3, 6, 7 and 10 micro-batches come the ends of the steps 1, 2, 3 and 4, and with each of these a validation.
    curves = (
        f"--trainer.val_check_interval={interval}",
        "--model.decay_steps=9",
        "--trainer.log_every_n_steps=2",
        "--checkpoints.every_n_steps=3",
    )
    whole, extended = tmp_path / "whole", tmp_path / "extended"
    assert runs.fit(whole, config, *curves) == [0], runs.log_of(whole)
    for steps in (*ends, 9):
        status = runs.fit(extended, config, *curves, f"--trainer.max_steps={steps}")
        assert status == [0], runs.log_of(extended)
    runs.assert_same_end(extended, whole)


def test_another_learning_rate_is_taken_with_its_schedule_and_said(copy, config):
    status = runs.fit(copy, config, "--model.optimizer.lr=1e-5", "--model.decay_steps=9", "--trainer.max_steps=4")
    assert status == [0], runs.log_of(copy)
    assert "learning rate: 3e-05 in the checkpoint, 1e-05 from now on" in runs.log_of(copy)
    rates = runs.curves(copy)["train/lr"]
    assert rates[1] == pytest.approx([2e-5])  # two of three steps of warm-up
    assert rates[2] == rates[3] == pytest.approx([1e-5])


def test_the_state_of_the_optimiser_stays_when_its_settings_change(copy, config):
    before = runs.last(copy)["optimizer_states"][0]["state"]
    status = runs.fit(copy, config, *SHORT, "--model.optimizer.betas=[0.5,0.9]", "--trainer.max_steps=3")
    assert status == [0], runs.log_of(copy)
    after = runs.last(copy)["optimizer_states"][0]
    assert after["param_groups"][0]["betas"] == (0.5, 0.9)
    assert int(after["state"][0]["step"]) == int(before[0]["step"]) + 1


def test_a_step_has_all_of_its_micro_batches_after_they_became_more(copy, config):
    # 6 micro-batches are no multiple of 4: Lightning's count would end the next step after 2.
    more = ("--trainer.accumulate_grad_batches=4", "--data.batches_per_epoch=1000", "--trainer.max_steps=4")
    assert runs.fit(copy, config, *SHORT, *more) == [0], runs.log_of(copy)
    assert "accumulate_grad_batches: 3 in the checkpoint, 4 from now on" in runs.log_of(copy)
    (state,) = runs.last(copy)["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    assert state["micro_step"] == 6 + 2 * 4
    assert list(runs.curves(copy)["train/loss"]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model.task=lightning_modules.Normals", "trained with the task lightning_modules.Depth, not"),
        ("--model.optimizer=torch.optim.SGD", "trained with the optimiser torch.optim.AdamW, not torch.optim.SGD"),
        ("--trainer.max_steps=1", "max_steps is 1, but the checkpoint has 2 steps already"),
    ],
)
def test_what_cannot_go_on_is_refused_and_the_record_stays_true(copy, config, option, words):
    record = copy / "tiny/version_0/config.yaml"
    before = record.read_text()
    options = [*SHORT, option] if "max_steps" in option else [*SHORT, "--trainer.max_steps=3", option]
    assert runs.fit(copy, config, *options) == [MISTAKE], runs.log_of(copy)
    assert words in runs.log_of(copy)
    assert record.read_text() == before


def test_the_record_holds_the_settings_of_the_newest_start(copy, config):
    assert runs.fit(copy, config, *SHORT, "--ema.decay=0.5", "--trainer.max_steps=3") == [0], runs.log_of(copy)
    record = yaml.safe_load((copy / "tiny/version_0/config.yaml").read_text())
    assert (record["ema"]["decay"], record["trainer"]["max_steps"]) == (0.5, 3)
    assert "ema.decay: 0.9 in the checkpoint, 0.5 from now on" in runs.log_of(copy)
