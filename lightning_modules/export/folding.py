"""A single-step network as plain parts that stock diffusers runs to the same result, whatever noise it draws.

diffusers' Marigold pipelines start from gaussian latents and take what the scheduler makes of the UNet's answer.
Trained with zeros in place of noise, a network answers them with noise. So what surrounds the UNet is folded into its
weights: zeros for all that touches the noise, and the factor between the answer and the clean latent. A scheduler that
takes the answer as the clean latent does the rest.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from geometry.errors import InputError
from lightning_modules.estimator import Estimator
from lightning_modules.networks.stable_diffusion import StableDiffusion
from lightning_modules.single_step import SingleStepEstimator
from lightning_modules.tasks import Normals

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

# The pipeline clips decoded normals to [-1, 1], which turns those beyond. Only their direction counts, so the decoder
# is made to answer in small numbers; a power of two changes no digit.
_NORMALS_SCALE = 2.0**-4


@dataclass(frozen=True)
class FoldedParts:
    """Parts for a Marigold pipeline.

    Attributes:
        unet: with 8 input channels, the image latent first.
        vae: the autoencoder.
        scheduler_options: what the scheduler's config must say differently.
        needs_noise: the result depends on the noise, as it did in training.
    """

    unet: "UNet2DConditionModel"
    vae: "AutoencoderKL"
    scheduler_options: dict[str, Any]
    needs_noise: bool


def fold(estimator: Estimator) -> FoldedParts:
    """Return the parts of an estimator for a stock Marigold pipeline of one step.

    Args:
        estimator: a trained estimator.

    Raises:
        InputError: the estimator is no Stable Diffusion of a single step, or was trained with noise that diffusers
            cannot draw.
    """
    network = estimator.network
    if not isinstance(estimator, SingleStepEstimator) or not isinstance(network, StableDiffusion):
        raise InputError(
            f"{type(estimator).__name__} with {type(network).__name__} cannot be exported; only SingleStepEstimator "
            "with StableDiffusion can."
        )
    if network.noise == "pyramid":
        raise InputError(
            "a network trained with noise: pyramid cannot be exported: diffusers draws gaussian noise only. Train "
            "with noise: zeros, gaussian or none."
        )
    parts: dict[str, Any] = {name: part.cpu() for name, part in network.export_parts().items()}
    unet, vae, config = parts["unet"], parts["vae"], network.scheduler.config
    needs_noise = network.noise == "gaussian"
    if not needs_noise:
        _ignore_noise(unet, vae.config["latent_channels"])
        _scale_output(unet, _answer_to_clean(network.alpha, config["prediction_type"]))
    if isinstance(estimator.task, Normals):
        _prepare_normals(vae, estimator.task.frame)
    options = {
        "prediction_type": config["prediction_type"] if needs_noise else "sample",
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        "clip_sample": bool(config.get("clip_sample")),
        "thresholding": bool(config.get("thresholding")),
    }
    return FoldedParts(unet, vae, options, needs_noise)


def _answer_to_clean(alpha: float, prediction_type: str) -> float:
    """Return the clean latent over the UNet's answer, where the noisy latent is zero."""
    rest = math.sqrt(1 - alpha)
    return {"v_prediction": -rest, "epsilon": -rest / math.sqrt(alpha), "sample": 1.0}[prediction_type]


@torch.no_grad()
def _ignore_noise(unet: "UNet2DConditionModel", latent_channels: int) -> None:
    """Let the first layer take twice the latent channels, and nothing from the second half."""
    first = unet.conv_in
    weight = first.weight.new_zeros(first.out_channels, 2 * latent_channels, *first.kernel_size)
    weight[:, :latent_channels] = first.weight[:, :latent_channels]
    first.weight = nn.Parameter(weight)
    first.in_channels = 2 * latent_channels
    unet.register_to_config(in_channels=2 * latent_channels)


@torch.no_grad()
def _scale_output(unet: "UNet2DConditionModel", factor: float) -> None:
    unet.conv_out.weight *= factor
    if unet.conv_out.bias is not None:
        unet.conv_out.bias *= factor


@torch.no_grad()
def _prepare_normals(vae: "AutoencoderKL", frame: str) -> None:
    """Let the decoder answer in small numbers, and in our frame."""
    from geometry.normals import convert_frame

    last: Any = vae.decoder.conv_out
    for parameter in (last.weight, last.bias):
        as_image = parameter.reshape(1, 3, -1, 1) * _NORMALS_SCALE
        parameter.copy_(convert_frame(as_image, frame, "opengl").reshape(parameter.shape))
