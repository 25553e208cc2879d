"""A checkpoint whose states are not built like those that a trainer saves is one line, where a traceback was."""

import re

import pytest
import torch

from tests.test_train import base, config, error_of, run  # noqa: F401 - fixtures

pytestmark = pytest.mark.filterwarnings("ignore")


def put(content, place, value):
    """Put another value at a place, or take the place away where the value is None."""
    *parents, last = place
    inner = content
    for key in parents:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value


CASES = [
    (("loops",), None, "lacks loops"),
    (("optimizer_states",), None, "lacks optimizer_states"),
    (("lr_schedulers",), None, "lacks lr_schedulers"),
    (("pytorch-lightning_version",), "x", "pytorch-lightning_version"),
    (("loops", "fit_loop"), {}, "loops/fit_loop lacks"),
    (("loops", "fit_loop", "epoch_progress"), 3, "epoch_progress is no dictionary"),
    (("loops", "fit_loop", "epoch_progress", "total", "ready"), "many", "total/ready is no count"),
    (
        ("loops", "fit_loop", "epoch_loop.state_dict"),
        {"_batches_that_stepped": "x"},
        "_batches_that_stepped is no count",
    ),
    (("loops", "fit_loop", "state_dict", "combined_loader"), 3, "no list of states of the data"),
    (("lr_schedulers", 0, "last_epoch"), "x", "last_epoch is no count"),
    (("optimizer_states", 0, "param_groups", 0, "params"), [0], "trained 1 weights, but 208 train now"),
    (("optimizer_states", 0, "param_groups", 0, "params"), "x", "have no params"),
    (("optimizer_states", 0, "state", 0, "exp_avg"), torch.zeros(3), "exp_avg of weight 0"),
    (("optimizer_states", 0, "state", 0, "exp_avg"), "x", "exp_avg of weight 0"),
    (("callbacks", "Checkpoints"), {}, "callbacks/Checkpoints/"),
    (("means",), 3, "means"),
]


def test_each_wrong_state_is_one_line_and_the_right_ones_go_on(config, tmp_path, capsys):  # noqa: F811
    run("fit", "--config", config)
    file = tmp_path / "runs/tiny/version_0/checkpoints/last.ckpt"
    for place, value, message in CASES:
        content = torch.load(file, weights_only=True)
        put(content, place, value)
        torch.save(content, tmp_path / "wrong.ckpt")
        error = error_of(capsys, "fit", "--config", config, f"--ckpt_path={tmp_path / 'wrong.ckpt'}")
        assert re.search(message, error) and "wrong.ckpt" in error, (place, error)
    run("fit", "--config", config, "--ckpt_path=last", "--trainer.max_steps=4")
    assert torch.load(file, weights_only=True)["global_step"] == 4
