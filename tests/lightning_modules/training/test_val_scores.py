"""Scores of validations in the run's folder, and what reads them."""

import json
from types import SimpleNamespace

import pytest
import torch

from lightning_modules.inference.run_config import last_scores
from lightning_modules.training.val_scores import FILE, ValidationScores, read_scores


def validate(folder, start, *steps):
    """Let a run start after so many optimiser steps, and validate after others; the score is the step."""
    trainer = SimpleNamespace(global_step=start, is_global_zero=True, sanity_checking=False, fast_dev_run=0)
    callback = ValidationScores(folder)
    callback.on_train_start(trainer, None)
    for step in steps:
        trainer.global_step = step
        trainer.callback_metrics = {"val/a/abs_rel": torch.tensor(float(step)), "train/loss": torch.tensor(9.0)}
        callback.on_validation_end(trainer, None)


def test_an_older_checkpoint_gets_the_scores_of_its_own_time(tmp_path):
    validate(tmp_path, 0, 5, 10, 15)
    assert last_scores(tmp_path) == (15, {"val/a/abs_rel": 15.0})
    assert last_scores(tmp_path, at_step=12) == (10, {"val/a/abs_rel": 10.0})
    assert last_scores(tmp_path, at_step=4) == (0, {})


def test_a_run_that_goes_on_from_an_earlier_step_forgets_what_lay_ahead(tmp_path):
    validate(tmp_path, 0, 5, 10)
    validate(tmp_path, 7, 8)
    assert list(read_scores(tmp_path)) == [5, 8]


@pytest.mark.parametrize(
    "content", ["", "[", "3", "[1]", '[{"step": "x"}]', '[{"step": 1e999, "scores": {}}]', "[" * 9999]
)
def test_a_damaged_file_is_none(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    assert read_scores(tmp_path) == {}
    validate(tmp_path, 0, 5)
    assert json.loads((tmp_path / FILE).read_text())[0]["step"] == 5
