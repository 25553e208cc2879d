"""ETH3D's images of 24 million pixels in bounded memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.benchmark_archives import DEPTH_ARCHIVES, depth_members, write_tar
from tests.helpers.tiny import build_base

NUM_SAMPLES = 3
# In a process of its own, whose peak is then that of the evaluation alone. It waits for its loader processes.
CODE = """
import resource, sys, train
train.main(["test", *sys.argv[1:]])
kinds = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
print("peaks", *(resource.getrusage(kind).ru_maxrss / 2**20 for kind in kinds))
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_full_eth3d_samples_are_evaluated_within_four_gigabytes(tmp_path, num_workers):
    generator = np.random.default_rng(0)
    members = {}
    for number in range(1, NUM_SAMPLES + 1):
        members |= depth_members("eth3d", number, generator, (4032, 6048))
    write_tar(tmp_path / DEPTH_ARCHIVES["eth3d"], members)
    options = [
        *("--config", "configs/benchmark_depth.yaml", "--data.root", tmp_path, "--data.num_workers", num_workers),
        *("--model.init_args.network.init_args.base", build_base(tmp_path / "base", in_channels=8, vae_factor=8)),
        *("--trainer.accelerator", "cpu", "--evaluation.output", tmp_path / "out"),
    ]
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", CODE, *map(str, options)]
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    assert f"on {NUM_SAMPLES} images" in output
    peaks_gib = [float(number) for number in output.splitlines()[-1].split()[1:]]
    print(f"{num_workers} loader processes: this process {peaks_gib[0]:.2f} GiB, the largest other {peaks_gib[1]:.2f}")
    assert peaks_gib[0] + num_workers * peaks_gib[1] < 4
