import copy
import os
import re
import signal
from types import SimpleNamespace

import pytest
import torch

from geometry.errors import InputError
from lightning_modules.training.run_settings import CHECKPOINT_KEY, RunSettings, flat_settings, settings_in

DEPTH = {
    "class_path": "lightning_modules.Depth",
    "init_args": {"loss": {"class_path": "L1", "init_args": {"scale": 2}}},
}
ADAM = {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3, "betas": [0.9, 0.999]}}
CONFIG = {
    "model": {"class_path": "lightning_modules.SingleStepEstimator", "init_args": {"task": DEPTH, "optimizer": ADAM}},
    "data": {"class_path": "datamodules.GeometryDataModule", "init_args": {"batch_size": 2, "num_workers": 4}},
    "ema": {"decay": 0.9},
    "trainer": {"max_steps": 10, "logger": None, "precision": None},
}


def changed(**changes):
    """Return the configuration with ``section__key__key=value`` in place of what was there."""
    config = copy.deepcopy(CONFIG)
    for path, value in changes.items():
        *folders, name = path.split("__")
        node = config
        for folder in folders:
            node = node[folder]
        node[name] = value
    return config


def resume(config, stored=None, step=5, command="fit"):
    trainer = SimpleNamespace(state=SimpleNamespace(fn=command), max_steps=config["trainer"]["max_steps"])
    checkpoint = {"global_step": step}
    if stored is not None:
        RunSettings(stored).on_save_checkpoint(trainer, None, checkpoint)
    RunSettings(config).on_load_checkpoint(trainer, None, checkpoint)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr("lightning_modules.training.run_settings.rank_zero_info", lines.append)
    return lines


def test_settings_are_plain_values_that_a_checkpoint_may_hold():
    settings = flat_settings(CONFIG)
    assert settings["model.optimizer.lr"] == 1e-3
    assert settings["model.optimizer.betas.1"] == 0.999
    assert all(value is None or isinstance(value, str | int | float | bool) for value in settings.values())


def test_nothing_is_said_of_what_did_not_change_or_changes_nothing(said):
    stored = changed(trainer__logger="csv", data__init_args__num_workers=0)
    resume(CONFIG, {key: stored[key] for key in reversed(stored)})
    assert said == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model__init_args__optimizer__init_args__lr": 1e-5}, "learning rate: 0.001 in the checkpoint, 1e-05 from"),
        ({"model__init_args__optimizer__init_args__betas": [0.8, 0.9]}, "model.optimizer.betas.0: 0.9 in the"),
        ({"data__init_args__batch_size": 4}, "data.batch_size: 2 in the checkpoint, 4 from now on"),
        ({"trainer__precision": "bf16-mixed"}, "trainer.precision: not set in the checkpoint, bf16-mixed from now on"),
        ({"ema__decay": None}, "its average is dropped"),
        ({"model__init_args__init_from": "other.ckpt"}, "init_from other.ckpt has no effect"),
    ],
)
def test_a_changed_setting_is_said_in_one_line(said, change, words):
    resume(changed(**change), CONFIG)
    assert len(said) == 1
    assert words in said[0]


def test_of_another_loss_the_name_is_said_and_not_each_of_its_settings(said):
    resume(changed(model__init_args__task__init_args__loss={"class_path": "L2", "init_args": {"other": 3}}), CONFIG)
    assert said == ["other settings than the checkpoint's: model.task.loss: L1 in the checkpoint, L2 from now on."]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model__init_args__task": {"class_path": "lightning_modules.Normals"}}, "task lightning_modules.Depth, not"),
        ({"model__init_args__optimizer": {"class_path": "torch.optim.SGD"}}, "optimiser torch.optim.AdamW, not"),
        ({"model__class_path": "lightning_modules.DiffusionEstimator"}, "estimator lightning_modules.SingleStep"),
        ({"data__class_path": "synthetic_scenes.SyntheticDataModule"}, "data module datamodules.GeometryDataModule"),
    ],
)
def test_another_kind_of_run_is_refused_with_the_way_to_start_from_its_weights(change, words):
    with pytest.raises(InputError, match=re.escape(words)) as caught:
        resume(changed(**change), CONFIG)
    assert "--model.init_from" in str(caught.value)


def test_the_same_class_under_another_module_is_no_other_kind_of_run(said):
    resume(changed(model__init_args__task__class_path="lightning_modules.tasks.Depth"), CONFIG)
    assert "model.task: lightning_modules.Depth in the checkpoint, lightning_modules.tasks.Depth" in said[0]


def test_scoring_a_checkpoint_on_another_task_is_refused_and_on_other_data_is_not(said):
    with pytest.raises(InputError, match=r"task lightning_modules.Depth, not lightning_modules.Normals"):
        resume(changed(model__init_args__task={"class_path": "lightning_modules.Normals"}), CONFIG, command="validate")
    resume(changed(data__class_path="datamodules.Benchmarks"), CONFIG, command="test")
    assert said == []


def test_settings_are_not_looked_for_in_what_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    for name, settings in (("list", {"model.optimizer.lr": [1]}), ("own", {"seed_everything": 3})):
        torch.save({"state_dict": {"a": torch.zeros(1)}, CHECKPOINT_KEY: settings}, tmp_path / f"{name}.ckpt")
    signal.alarm(20)  # a pipe would be waited for without end
    found = [settings_in(str(tmp_path / f"{name}.ckpt")) for name in ("pipe", "nothing", "list", "own")]
    signal.alarm(0)
    assert found == [{}, {}, {}, {"seed_everything": 3}]


def test_fewer_steps_than_the_checkpoint_has_are_refused_and_as_many_are_not():
    with pytest.raises(InputError, match="max_steps is 10, but the checkpoint has 11 steps"):
        resume(CONFIG, CONFIG, step=11)
    resume(CONFIG, CONFIG, step=10)


def test_a_checkpoint_of_an_earlier_version_goes_on_with_a_word(said):
    resume(CONFIG)
    assert len(said) == 1
    assert CHECKPOINT_KEY == "settings"
    assert "does not say what it was trained with" in said[0]
