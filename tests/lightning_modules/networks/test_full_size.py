"""One optimiser step with Stable Diffusion 2 at its true size, on random weights."""

import resource
import time

import pytest
import torch

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from tests.helpers.full_size import random_full_size_base
from tests.helpers.tiny import make_batch


@pytest.mark.slow
def test_one_step_at_full_size_moves_every_weight_of_the_unet(tmp_path):
    with random_full_size_base(tmp_path) as base:
        network = StableDiffusion(str(base), unet_checkpointing=True, decoder_checkpointing=True)
    num_weights = {name: sum(p.numel() for p in getattr(network, name).parameters()) for name in ("unet", "vae")}
    assert num_weights == {"unet": 865_922_244, "vae": 83_653_863}  # SD 2, with four more channels in the first layer

    estimator = SingleStepEstimator(network, Depth())
    optimizer = estimator.make_optimizer(network.unet.parameters())
    before = network.unet.conv_in.weight.detach().clone()
    start = time.perf_counter()
    loss, _ = estimator.training_loss(make_batch(num_images=1, height=96, width=128), [0])
    loss.backward()
    norm = estimator.gradient_guard.apply(optimizer, 0)
    assert all(weight.grad is not None and weight.grad.any() for weight in network.unet.parameters())
    optimizer.step()
    estimator.gradient_guard.settle()
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{time.perf_counter() - start:.1f} s, peak memory {peak_gib:.1f} GiB, loss {loss:.4f}, norm {norm:.4f}")
    assert loss.isfinite() and norm.isfinite()
    assert not torch.equal(network.unet.conv_in.weight, before)
