"""ETH3D's images of 24 million pixels in bounded memory."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import resource, sys
import numpy as np, torch
from pathlib import Path
from datamodules.benchmarks.datamodule import Benchmarks
from lightning_modules import Depth
from lightning_modules.evaluation.pictures import paint_sample
from lightning_modules.evaluation.scoring import Scorer, Tally
from tests.benchmark_archives import DEPTH_ARCHIVES, depth_members, write_tar

root = Path(sys.argv[1])
if len(sys.argv) > 2:
    write_tar(root / DEPTH_ARCHIVES["eth3d"], depth_members("eth3d", 1, np.random.default_rng(0), (4032, 6048)))
    raise SystemExit
data = Benchmarks(str(root), ["eth3d"], num_workers=0)
data.setup("test")
tally, task = Tally(), Depth()
for batch in data.test_dataloader()[0]:
    assert batch["image"].shape[-2:] == (504, 756) and batch["depth"].shape[-2:] == (4032, 6048)
    prediction = torch.rand(1, 1, 504, 756)
    Scorer.for_dataset(task, data, "eth3d").score(tally, prediction, batch)
    paint_sample(task, prediction, batch)
assert len(tally.rows) == 1
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_full_eth3d_sample_is_scored_within_four_gigabytes(tmp_path):
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    root = Path(__file__).parents[3]
    subprocess.run([*command, "write"], cwd=root, check=True)  # on its own: writing takes more than scoring
    output = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout
    assert float(output) < 4
