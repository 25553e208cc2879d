"""What version 0.1 left behind is of use to today's code: its shards are read, its run goes on, its model predicts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from datamodules.geometry_datamodule import DatasetSource, GeometryDataModule
from lightning_modules.inference import Predictor
from tests.helpers import runs

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def left_behind(tmp_path, monkeypatch):
    shutil.copytree(Path(__file__).parent / "fixtures/version_0_1", tmp_path / "old")
    monkeypatch.chdir(tmp_path / "old")
    return tmp_path / "old"


def test_a_run_goes_on_from_its_checkpoint_to_the_end_that_it_had_in_version_0_1(left_behind):
    assert runs.last(Path("runs"))["global_step"] == 4
    words = ["--config=config.yaml", "--trainer.default_root_dir=runs", "--ckpt_path=last", "--trainer.devices=1"]
    train.main(["fit", *words])
    assert runs.last(Path("runs"))["global_step"] == 9
    expected, found = json.loads(Path("curves.json").read_text()), runs.curves(Path("runs"))
    compared = 0
    for name, steps in found.items():
        for step, values in steps.items():
            # Losses and scores say whether images, order, noise, optimiser and average went on.
            if name in expected and str(step) in expected[name]:
                assert values[-1] == pytest.approx(expected[name][str(step)], rel=1e-4), f"{name} at step {step}"
                compared += 1
    assert compared >= 30 and {"train/loss", "train/grad_norm", "val/a/abs_rel"} <= found.keys() & expected.keys()


def test_its_model_predicts_what_it_predicted(left_behind):
    image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    prediction = Predictor.load("runs/tiny", processing_res=0, device="cpu")(image)
    assert np.abs(prediction - np.load("prediction.npy")).max() < 1e-5


def test_its_shards_are_read_with_every_modality(left_behind):
    data = GeometryDataModule([DatasetSource("b")], modalities=["depth", "normals"], num_workers=0, val_num_workers=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.targets.keys() == {"depth", "normals"} and batch.targets["depth"].mask.any()
    normals = batch.targets["normals"]
    lengths = normals.values.norm(dim=1, keepdim=True)[normals.mask]
    assert len(lengths) and torch.allclose(lengths, torch.ones_like(lengths), atol=1e-3)
