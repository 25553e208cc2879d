"""The scripts for clusters, with srun, scontrol and torchrun that only write down what they were asked."""

import os
import subprocess
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def run(tmp_path):
    def start(script, srun_status=0):
        for name in ("srun", "scontrol", "torchrun"):
            tool = tmp_path / name
            status = srun_status if name == "srun" else 0
            tool.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/asked\nexit {status}\n')
            tool.chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "2"}
        command = ["bash", EXAMPLES / script, "c.yaml", "--trainer.max_steps=3"]
        status = subprocess.run(command, env=environment | {"NODES": "2"}, check=False).returncode
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


def test_torchrun_is_told_of_every_machine(run):
    status, (torchrun,) = run("torchrun.sh")
    assert status == 0
    assert "--nnodes 2" in torchrun and "--ckpt_path last --trainer.num_nodes 2" in torchrun
