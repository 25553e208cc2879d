"""How much memory large images take."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.lightning_modules.inference.runs import make_run, photo

ROOT = Path(__file__).parents[3]
MEASURED = """
import resource, sys, train
try:
    train.main(sys.argv[1:])
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


SIZE = (8192, 6144)


@pytest.mark.slow
def test_an_image_of_fifty_megapixels_takes_little_memory(tmp_path):
    """Measured: 1.35 GiB, of which an image of one pixel takes 0.7."""
    Image.fromarray(photo(192, 256)).resize(SIZE).save(tmp_path / "large.jpg")
    run = make_run(tmp_path / "run", vae_factor=8)
    words = ["predict", tmp_path / "large.jpg", "--ckpt_path", run, "--output", tmp_path / "out", "--quiet"]
    command = [sys.executable, "-c", MEASURED, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with Image.open(tmp_path / "out/large_depth.png") as depth:
        assert depth.size == SIZE
    assert float(done.stdout.splitlines()[-1]) < 2
