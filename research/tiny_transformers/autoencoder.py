"""The autoencoder of both toys: that of the toy Stable Diffusion, with latents of 16 channels as newer bases have."""

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from research.tiny_stable_diffusion.autoencoder import fit_autoencoder, mean_latents
from research.tiny_stable_diffusion.scenes import Scenes

_LATENT_CHANNELS = 16
# Layers that are as wide as the latents, and begin at random; and those that newer autoencoders do not have.
_NOT_KEPT = ("encoder.conv_out", "decoder.conv_in", "quant_conv", "post_quant_conv")


def train_widened(small: AutoencoderKL, train: dict[str, Scenes], steps: int, device: str) -> AutoencoderKL:
    """Return an autoencoder in the layout of Stable Diffusion 3 and FLUX.1.

    Args:
        small: the autoencoder whose weights it begins with, wherever they do not depend on the latents.
        train: scenes by kind.
        steps: optimiser steps.
        device: where to.

    Returns:
        The autoencoder, whose latents have mean 0 and deviation 1 after shift_factor and scaling_factor.
    """
    torch.manual_seed(4)
    changes = {"latent_channels": _LATENT_CHANNELS, "use_quant_conv": False, "use_post_quant_conv": False}
    vae = AutoencoderKL.from_config({**small.config, **changes})
    kept = {name: value for name, value in small.state_dict().items() if not name.startswith(_NOT_KEPT)}
    vae.load_state_dict({**vae.state_dict(), **kept})
    fit_autoencoder(vae.to(device), train, None, steps, 1.5e-3, np.random.default_rng(4))
    latents = mean_latents(vae, train, np.random.default_rng(5))
    scale, shift = 1 / latents.std().item(), latents.mean().item()
    vae.register_to_config(scaling_factor=round(scale, 5), shift_factor=round(shift, 5))
    return vae
