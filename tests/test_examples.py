"""The scripts for clusters, with srun, scontrol and torchrun that only write down what they were asked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path):
    def start(script, srun_status=0, **settings):
        for name in ("srun", "scontrol", "torchrun"):
            tool = tmp_path / name
            status = srun_status if name == "srun" else 0
            notes = f'echo "{name} $*" >> {tmp_path}/asked\necho "$PYTORCH_ALLOC_CONF" > {tmp_path}/memory'
            tool.write_text(f"#!/bin/sh\n{notes}\nexit {status}\n")
            tool.chmod(0o755)
        environment = settings | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NUM_NODES": "2",
        }
        command = ["bash", EXAMPLES / script, "c.yaml", "--trainer.max_steps=3"]
        status = subprocess.run(command, env=environment | settings | {"NODES": "2"}, check=False).returncode
        return status, (tmp_path / "asked").read_text().splitlines()

    return start


def test_slurm_requeues_a_job_that_was_stopped_and_saved(run):
    status, (srun, scontrol) = run("slurm.sbatch", srun_status=75)
    assert status == 0
    assert "fit --config c.yaml --ckpt_path last --trainer.num_nodes 2" in srun and "--trainer.max_steps=3" in srun
    assert scontrol == "scontrol requeue 7"


@pytest.mark.parametrize("ended", [0, 1, 2])
def test_slurm_requeues_neither_a_finished_job_nor_an_error(run, ended):
    status, asked = run("slurm.sbatch", srun_status=ended)
    assert status == ended and len(asked) == 1


@pytest.mark.parametrize("script", ["slurm.sbatch", "torchrun.sh"])
def test_memory_grows_in_place_unless_the_user_says_how(run, script, tmp_path):
    run(script)
    assert (tmp_path / "memory").read_text() == "expandable_segments:True\n"
    settings = "import torch; print(torch._C._accelerator_getAllocatorSettings())"
    command = [sys.executable, "-c", settings]
    environment = os.environ | {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    read = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    assert read == "expandable_segments:True\n", "PyTorch does not read the variable"
    run(script, PYTORCH_ALLOC_CONF="max_split_size_mb:512")
    assert (tmp_path / "memory").read_text() == "max_split_size_mb:512\n"


def test_torchrun_is_told_of_every_machine(run):
    status, (torchrun,) = run("torchrun.sh")
    assert status == 0
    assert "--nnodes 2" in torchrun and "--ckpt_path last --trainer.num_nodes 2" in torchrun
