"""One optimiser step with Stable Diffusion 2 at its true size, on random weights."""

import resource
import time

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from tests.tiny import PROMPT_TOKENS, build_base, make_batch


def build_full_size_base(folder):
    """Write a base with the sizes of Stable Diffusion 2's UNet and VAE; its text encoder has one layer alone."""
    build_base(folder, vae_factor=8)
    UNet2DConditionModel(
        sample_size=96,
        down_block_types=["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        block_out_channels=[320, 640, 1280, 1280],
        layers_per_block=2,
        cross_attention_dim=1024,
        attention_head_dim=[5, 10, 20, 20],
        use_linear_projection=True,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        latent_channels=4,
        sample_size=768,
    ).save_pretrained(folder / "vae")
    text = CLIPTextConfig(
        vocab_size=3,
        hidden_size=1024,
        intermediate_size=1024,
        num_hidden_layers=1,
        num_attention_heads=16,
        max_position_embeddings=PROMPT_TOKENS,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    return folder


@pytest.mark.slow
def test_one_step_at_full_size_moves_every_weight_of_the_unet(tmp_path):
    network = StableDiffusion(str(build_full_size_base(tmp_path)), unet_checkpointing=True, decoder_checkpointing=True)
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
