"""Whole runs in which no step makes the host wait for the device, whatever is on: Lightning and callbacks included."""

import pytest

from lightning_modules.training.callbacks import Throughput
from lightning_modules.training.ema import ExponentialMovingAverage
from lightning_modules.training.monitoring import UpdateRatio
from lightning_modules.training.monitors import MonitoredCurves
from tests.helpers import runs
from tests.helpers.host_waits import WATCH, Watch, found_in
from tests.helpers.tiny import TinyData, build_base
from tests.lightning_modules.test_estimator import make_estimator, make_trainer
from tests.tiny_bases import write_base

pytestmark = pytest.mark.filterwarnings("ignore")
runs.start_server()

# Steps that validate or save may wait. Every second step is logged, and the next one must not pay for that.
QUIET = (
    "--trainer.log_every_n_steps=2",
    "--trainer.val_check_interval=1000",
    "--checkpoints.every_n_steps=1000",
    "--data.batches_per_epoch=1000",
    "--data.num_workers=1",  # what a loader process does, no step waits for
)
SHARDED = ("--trainer.strategy.class_path=lightning_modules.FullySharded", "--data.val_batch_size=1")


def waits(folder, *options, network=None, world_size=1):
    config = runs.prepare(folder / "data", 4, network)
    out = folder / "runs"
    codes = runs.fit(out, config, WATCH, *QUIET, *options, world_size=world_size)
    assert not any(codes), runs.log_of(out)
    return found_in(out)


def test_lightning_and_callbacks_make_no_step_wait(tmp_path):
    estimator = make_estimator(build_base(tmp_path / "base"))
    callbacks = [Watch(), ExponentialMovingAverage(0.9), Throughput(), UpdateRatio(), MonitoredCurves()]
    trainer = make_trainer(tmp_path, 4, callbacks, log_every_n_steps=2, default_root_dir=tmp_path)
    trainer.fit(estimator, TinyData())
    assert found_in(tmp_path) == []
    assert estimator.bar_values.keys() == {"loss", "images_per_s"}


@pytest.mark.slow
def test_no_step_of_a_command_waits(tmp_path):
    assert waits(tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [(), SHARDED, ("--model.network.lora={rank: 2}",), ("--model.network.lora={rank: 2}", *SHARDED)],
    ids=["DDP", "FSDP", "adapters, DDP", "adapters, FSDP"],
)
def test_no_step_of_two_ranks_waits(tmp_path, options):
    assert waits(tmp_path, *options, world_size=2) == []


@pytest.mark.slow
def test_no_step_in_bfloat16_over_a_base_in_4_bits_waits(tmp_path):
    arguments = {
        "base": str(write_base(tmp_path / "base", "flux_kontext")),
        "input_mode": "image",
        "quantization": "nf4",
        "lora": {"rank": 2},
    }
    network = {"class_path": "lightning_modules.PretrainedNetwork", "init_args": arguments}
    assert waits(tmp_path, "--trainer.precision=bf16-mixed", network=network) == []
