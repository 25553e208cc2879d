"""Whole runs in which no step makes the host wait for the device, whatever is on: Lightning and callbacks included."""

import pytest

from tests.helpers import runs
from tests.helpers.host_waits import WATCH, found_in

pytestmark = pytest.mark.filterwarnings("ignore")
runs.start_server()

# Steps that are logged, validated or saved may wait.
QUIET = (
    "--trainer.log_every_n_steps=1000",
    "--trainer.val_check_interval=1000",
    "--checkpoints.every_n_steps=1000",
    "--data.batches_per_epoch=1000",
    "--data.num_workers=1",  # what a loader process does, no step waits for
)


def waits(folder, *options, **kinds):
    config = runs.prepare(folder / "data", 3, kinds.pop("network", None))
    out = folder / "runs"
    codes = runs.fit(out, config, WATCH, *QUIET, *options, **kinds)
    assert not any(codes), runs.log_of(out)
    return found_in(out)


def test_no_step_of_a_run_with_an_average_waits(tmp_path):
    assert waits(tmp_path) == []
