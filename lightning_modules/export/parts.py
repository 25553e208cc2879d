"""What a stock Marigold pipeline is made of, and what every export of ours changes in it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

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
    factors = estimator.task.modality.decoder_factors()
    if factors is not None:
        _scale_decoder(models["vae"], factors)
    return models["unet"], models["vae"]


@torch.no_grad()
def _scale_decoder(vae: "AutoencoderKL", factors: tuple[float, float, float]) -> None:
    """Multiply the channels that the decoder answers."""
    last: Any = vae.decoder.conv_out
    for parameter in (last.weight, last.bias):
        parameter.mul_(parameter.new_tensor(factors).reshape(-1, *[1] * (parameter.ndim - 1)))
