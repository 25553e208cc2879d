"""The toy transformers of ``checkpoints`` have been trained, and their folders are read as those of their families."""

from pathlib import Path

import pytest
import torch

from lightning_modules import PretrainedNetwork

CHECKPOINTS = Path(__file__).parents[3] / "checkpoints"
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("name", "input_mode", "noise"),
    [("tiny-stable-diffusion-3", "image", "none"), ("tiny-flux-kontext", "sequence", "zeros")],
)
def test_a_toy_predicts_and_every_weight_that_trains_gets_a_gradient(name, input_mode, noise):
    network = PretrainedNetwork(str(CHECKPOINTS / name), input_mode, noise=noise)
    prediction = network(torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1)
    assert prediction.shape == (1, 3, 64, 96) and prediction.isfinite().all()
    prediction.square().mean().backward()
    lacking = [each for each, weight in network.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not lacking


@pytest.mark.parametrize("name", ["tiny-stable-diffusion-3", "tiny-flux-kontext"])
def test_a_toy_fits_into_a_repository(name):
    assert sum(file.stat().st_size for file in (CHECKPOINTS / name).rglob("*") if file.is_file()) < 10e6
