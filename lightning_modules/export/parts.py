"""What a stock Marigold pipeline is made of, and what every export of ours changes in it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from geometry.errors import InputError
from lightning_modules.estimator import Estimator
from lightning_modules.networks.stable_diffusion import StableDiffusion

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
        needs_noise: the result depends on the noise, as it did in training.
        num_steps: denoising steps.
    """

    unet: "UNet2DConditionModel"
    vae: "AutoencoderKL"
    scheduler_options: dict[str, Any]
    needs_noise: bool
    num_steps: int = 1


def network_of(estimator: Estimator) -> StableDiffusion:
    """Return the network of an estimator that can be exported.

    Raises:
        InputError: it is of another kind.
    """
    if not isinstance(estimator.network, StableDiffusion):
        raise InputError(
            f"{type(estimator.network).__name__} cannot be exported; only networks of the class StableDiffusion can."
        )
    return estimator.network


def copies_of_models(estimator: Estimator) -> tuple["UNet2DConditionModel", "AutoencoderKL"]:
    """Return UNet and VAE of an estimator on the CPU, the VAE as a stock pipeline expects it.

    Raises:
        InputError: the network is no Stable Diffusion.
    """
    models: dict[str, Any] = {name: model.cpu() for name, model in network_of(estimator).export_parts().items()}
    _fold_shift(models["vae"])
    factors = estimator.task.modality.decoder_factors()
    if factors is not None:
        _scale_decoder(models["vae"], factors)
    return models["unet"], models["vae"]


@torch.no_grad()
def _fold_shift(vae: "AutoencoderKL") -> None:
    """Take the shift of the latents into the layers on either side of them: Marigold's pipelines know of none."""
    model: Any = vae
    shift, channels = vae.config.get("shift_factor"), vae.config["latent_channels"]
    if not shift:
        return
    model.quant_conv = model.quant_conv or _identity(2 * channels)
    model.post_quant_conv = model.post_quant_conv or _identity(channels)
    model.quant_conv.bias[:channels] -= shift
    model.post_quant_conv.bias += shift * model.post_quant_conv.weight.sum(dim=(1, 2, 3))
    vae.register_to_config(shift_factor=None, use_quant_conv=True, use_post_quant_conv=True)


def _identity(channels: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, channels, 1)
    layer.weight.copy_(torch.eye(channels)[:, :, None, None])
    layer.bias = nn.Parameter(torch.zeros(channels))
    return layer.eval().requires_grad_(False)


@torch.no_grad()
def _scale_decoder(vae: "AutoencoderKL", factors: tuple[float, float, float]) -> None:
    """Multiply the channels that the decoder answers."""
    last: Any = vae.decoder.conv_out
    for parameter in (last.weight, last.bias):
        parameter.mul_(parameter.new_tensor(factors).reshape(-1, *[1] * (parameter.ndim - 1)))
