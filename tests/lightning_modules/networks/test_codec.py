"""Latents are normalised as the VAE's config says, and what is frozen keeps little."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from lightning_modules import StableDiffusion
from lightning_modules.networks.codec import AutoencoderKLCodec
from lightning_modules.networks.frozen import FrozenConv2d
from lightning_modules.networks.lora import LoRA
from tests.helpers.tiny import build_base, make_batch

MEAN, STD = [0.5, -1.0, 0.25, 2.0], [0.5, 2.0, 1.0, 3.0]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def make_codec(base, **config):
    vae = AutoencoderKL.from_pretrained(base, subfolder="vae")
    vae.register_to_config(**config)
    return AutoencoderKLCodec(vae)


@pytest.mark.parametrize(
    ("config", "mean", "std"),
    [
        ({"scaling_factor": 0.5}, [0.0] * 4, [2.0] * 4),
        ({"scaling_factor": 0.5, "shift_factor": 0.25}, [0.25] * 4, [2.0] * 4),
        ({"scaling_factor": 1.0, "latents_mean": MEAN, "latents_std": STD}, MEAN, STD),
        ({"scaling_factor": 0.5, "latents_mean": MEAN, "latents_std": STD}, MEAN, [2 * value for value in STD]),
    ],
)
def test_latents_are_normalised_and_back_as_the_config_says(base, config, mean, std):
    codec, image = make_codec(base, **config), make_batch(height=16, width=24).image
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    with torch.no_grad():
        plain = codec.model.encode(image).latent_dist.mean
        latent = codec.encode(image)
        assert torch.allclose(latent, (plain - mean) / std, atol=1e-5)
        assert torch.allclose(codec.decode(latent), codec.model.decode(plain).sample, atol=1e-4)


def frozen_convolutions(module):
    return [name for name, layer in module.named_modules() if type(layer) is FrozenConv2d]


def test_a_frozen_decoder_keeps_little_and_one_that_trains_is_as_ever(base):
    frozen, trained = StableDiffusion(str(base)), StableDiffusion(str(base), train_decoder=True)
    convolutions = [name for name, layer in frozen.vae.decoder.named_modules() if isinstance(layer, nn.Conv2d)]
    assert frozen_convolutions(frozen.vae.decoder) == convolutions
    assert not frozen_convolutions(frozen.unet)
    assert not frozen_convolutions(trained)


def test_a_base_under_adapters_keeps_little_and_its_widened_first_layer_still_trains(base):
    network = StableDiffusion(str(base), lora=LoRA(rank=2))
    assert frozen_convolutions(network.unet)
    network(make_batch().image).square().mean().backward()
    assert network.unet.conv_in.weight.grad.abs().sum() > 0
    assert network.unet.conv_in.bias.grad.abs().sum() > 0


def test_exported_copies_are_made_of_pytorchs_own_layers_and_the_network_stays_frugal(base):
    network = StableDiffusion(str(base), lora=LoRA(rank=2))
    for part in network.export_parts().values():
        assert not [layer for layer in part.modules() if type(layer).__module__.endswith("networks.frozen")]
    assert frozen_convolutions(network.vae.decoder) and frozen_convolutions(network.unet)
