"""What a stock Marigold pipeline is made of, and what every folder that is written for one changes in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_modules.networks.pipeline_folder import PipelineModel

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


@dataclass(frozen=True)
class PipelineParts:
    """Parts for a Marigold pipeline.

    Attributes:
        unet: with 8 input channels, the image latent first.
        vae: the autoencoder.
        scheduler_options: what the scheduler's config must say differently from the base's.
        num_steps: denoising steps.
    """

    unet: "UNet2DConditionModel"
    vae: "AutoencoderKL"
    scheduler_options: dict[str, Any]
    num_steps: int = 1


def copies_of_models(model: PipelineModel) -> tuple["UNet2DConditionModel", "AutoencoderKL"]:
    """Return copies of UNet and VAE on the CPU, the VAE as a stock pipeline expects it.

    Args:
        model: a Stable Diffusion.
    """
    models: dict[str, Any] = {name: copy.cpu() for name, copy in model.network.export_parts().items()}
    _fold_normalization(models["vae"])
    factors = model.modality.decoder_factors()
    if factors is not None:
        scale_channels(models["vae"].decoder.conv_out, factors)
    return models["unet"], models["vae"]


@torch.no_grad()
def _fold_normalization(vae: "AutoencoderKL") -> None:
    """Take all but the scale of the latents into the layers on either side of them: Marigold's pipelines know of none.

    A latent z is normalised to (z - mean) / std per channel; a shift_factor is a mean without std.
    """
    model: Any = vae
    channels, config = vae.config["latent_channels"], vae.config
    mean, std = torch.full((channels,), config.get("shift_factor") or 0.0), torch.ones(channels)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean, std = torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])
    if not mean.any() and bool((std == 1).all()):
        return
    model.quant_conv = model.quant_conv or _identity(2 * channels)
    model.post_quant_conv = model.post_quant_conv or _identity(channels)
    model.quant_conv.bias[:channels] -= mean
    model.quant_conv.bias[:channels] /= std
    model.quant_conv.weight[:channels] /= std[:, None, None, None]
    model.post_quant_conv.bias += (mean * model.post_quant_conv.weight[:, :, 0, 0]).sum(dim=1)
    model.post_quant_conv.weight *= std[:, None, None]
    vae.register_to_config(
        shift_factor=None, latents_mean=None, latents_std=None, use_quant_conv=True, use_post_quant_conv=True
    )


def _identity(channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, channels, 1)
    layer.weight.copy_(torch.eye(channels)[:, :, None, None])
    layer.bias = nn.Parameter(torch.zeros(channels))
    return layer.eval().requires_grad_(False)


@torch.no_grad()
def scale_channels(layer: nn.Conv2d, factors: Sequence[float]) -> None:
    """Multiply the channels that a layer puts out, all by one number or each by its own."""
    for parameter in layer.parameters():
        parameter.mul_(parameter.new_tensor(factors).reshape(-1, *[1] * (parameter.ndim - 1)))
