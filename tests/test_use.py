"""The way that the documents show: from training to an export to stock diffusers, in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import train
from tests.lightning_modules.inference.runs import picture

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[1]


def test_a_demo_checkpoint_gives_the_same_depth_in_stock_diffusers_as_with_predict(tmp_path, monkeypatch, capsys):
    shown = (ROOT / "docs/inference.md").read_text()
    export = "python train.py export --ckpt_path runs/demo --output exports/demo"
    assert f"{export}\n" in shown
    code = next(
        block for block in re.findall(r"```python\n(.*?)```", shown, flags=re.DOTALL) if "DiffusionPipeline" in block
    )

    monkeypatch.chdir(tmp_path)
    base = f"--model.init_args.network.init_args.base={ROOT / 'checkpoints/tiny-stable-diffusion'}"
    short = ("--data=tests.tiny.TinyData", "--data.init_args.size=32", "--trainer.max_steps=2", base)
    train.main(["fit", "--config", str(ROOT / "configs/demo.yaml"), *short])
    train.main(export.split()[2:])
    said = capsys.readouterr().out
    assert re.search(
        r"exports/demo: depth, diffusers, float32\. Largest difference from the checkpoint .*e-0[5-9]", said
    )

    Image.fromarray(picture(30, 40)).save("photo.png")
    code = code.replace("photo.jpg", "photo.png").replace(
        "pipeline(Image", "pipeline(processing_resolution=96, image=Image"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    script = f"{code}\nimport numpy\nnumpy.save('stock.npy', depth)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    train.main("predict photo.png --ckpt_path runs/demo --output out --processing-res 96 --quiet".split())
    assert np.abs(np.load("stock.npy") - np.load("out/photo_depth.npy")).max() < 1e-4
