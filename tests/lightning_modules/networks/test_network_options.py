"""Runs with adapters, a compiled network, a trained decoder and extra losses: each trains, resumes and validates."""

import re

import pytest
import torch
import yaml

import train
from tests.helpers.tiny import build_base

pytestmark = pytest.mark.filterwarnings("ignore")

NETWORK = "--model.network."
RUNS = {
    "lora": [f"{NETWORK}lora={{rank: 2, target_modules: [to_q, conv1]}}"],
    "compiled": [f"{NETWORK}compile={{backend: eager}}"],
    "decoder": [
        f"{NETWORK}train_decoder=true",
        f"{NETWORK}vae_precision=bfloat16",
        "--model.task.extra_losses=[{class_path: GradientMatching, init_args: {num_scales: 2}}]",
        "--model.latent_consistency={weight: 0.1}",
    ],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def weights_of(folder):
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    return checkpoint["global_step"], checkpoint["state_dict"]


def belongs(run, name):
    return {
        "lora": ".lora_" in name or name.startswith("network.unet.conv_in."),
        "compiled": name.startswith("network.unet.") and "_orig_mod" not in name,
        "decoder": name.startswith(("network.unet.", "network.vae.decoder.", "network.vae.post_quant_conv.")),
    }[run]


@pytest.mark.parametrize("run", RUNS)
def test_the_tiny_model_trains_resumes_and_validates(run, base, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    network = {"class_path": "lightning_modules.StableDiffusion", "init_args": {"base": str(base)}}
    estimator = {"network": network, "task": {"class_path": "lightning_modules.Depth"}}
    content = {
        "name": "tiny",
        "model": {"class_path": "lightning_modules.SingleStepEstimator", "init_args": estimator},
        "data": {"class_path": "tests.helpers.tiny.TinyData", "init_args": {"size": 16, "num_images": 1}},
        "trainer": {"default_root_dir": str(tmp_path / "runs"), "accelerator": "cpu", "max_steps": 1},
    }
    content["trainer"]["limit_val_batches"] = 0  # fit compiles for nothing but training

    config.write_text(yaml.safe_dump(content))
    folder = tmp_path / "runs/tiny/version_0"
    train.main(["fit", "--config", str(config), *RUNS[run]])
    step, first = weights_of(folder)
    assert step == 1
    assert first and all(belongs(run, name) for name in first)

    train.main(["fit", "--config", str(config), *RUNS[run], "--ckpt_path=last", "--trainer.max_steps=2"])
    step, second = weights_of(folder)
    assert step == 2
    assert second.keys() == first.keys()
    assert all(not torch.equal(first[name], second[name]) for name in first if "lora_A" not in name)

    capsys.readouterr()
    train.main(["validate", "--config", str(config), *RUNS[run], "--ckpt_path=last", "--trainer.limit_val_batches=1"])
    assert re.search(r"abs_rel +0\.\d{4}", capsys.readouterr().out)
