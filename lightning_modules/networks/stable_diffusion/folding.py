"""A single-step network as plain parts that stock diffusers runs to the same result, whatever noise it draws.

diffusers' Marigold pipelines start from gaussian latents and take what the scheduler makes of the UNet's output.
Trained with zeros in place of noise, a network predicts noise from them. So what surrounds the UNet is folded into its
weights: zeros for all that touches the noise, the label of a task, and the factor between the output and the clean
latent. A scheduler that takes the output as the clean latent does the rest.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from geometry.errors import InputError
from lightning_modules.networks.diffusion_process import DiffusionProcess
from lightning_modules.networks.pipeline_folder import PipelineModel
from lightning_modules.networks.stable_diffusion.pipeline_parts import PipelineParts, copies_of_models, scale_channels
from lightning_modules.networks.task_switch import TaskSwitch

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


def single_step_parts(model: PipelineModel) -> PipelineParts:
    """Return the parts of a network of a single step for a stock Marigold pipeline of one step.

    Args:
        model: a trained Stable Diffusion.

    Raises:
        InputError: it was trained with noise that diffusers cannot draw.
    """
    network, process = model.network, model.network.noise_process
    assert isinstance(process, DiffusionProcess)
    if network.noise == "pyramid":
        raise InputError(
            "a network trained with noise: pyramid cannot be exported: diffusers draws gaussian noise only. Train "
            "with noise: zeros, gaussian or none."
        )
    unet, vae = copies_of_models(model)
    if isinstance(network.switch, TaskSwitch):
        _fold_label(unet, network.switch, model.modality.name)
    config = process.scheduler.config
    needs_noise = network.noise == "gaussian"
    if not needs_noise:
        _ignore_noise(unet, vae.config["latent_channels"])
        scale_channels(unet.conv_out, [_output_to_x0(process.last_alpha, config["prediction_type"])])
    options = {
        "prediction_type": config["prediction_type"] if needs_noise else "sample",
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        "clip_sample": bool(config.get("clip_sample")),
        "thresholding": bool(config.get("thresholding")),
    }
    return PipelineParts(unet, vae, options)


@torch.no_grad()
def _fold_label(unet: "UNet2DConditionModel", switch: TaskSwitch, modality: str) -> None:
    """Add the embedding of the one label that is left to that of the timestep, which is its neighbour in the sum.

    Raises:
        InputError: the outputs need each other.
    """
    if switch.joint:
        raise InputError(
            "no pipeline of diffusers gives outputs that see each other (network.switch.joint); export it with "
            "--format torch, or use python train.py predict."
        )
    label = switch.labels([switch.output_of(modality)])
    last = unet.time_embedding.linear_2
    embedding = unet.class_embedding(label)[0]
    last.bias = nn.Parameter(embedding if last.bias is None else last.bias + embedding)
    unet.class_embedding = None  # type: ignore[assignment]
    unet.register_to_config(class_embed_type=None, projection_class_embeddings_input_dim=None)


def _output_to_x0(alpha: float, prediction_type: str) -> float:
    """Return the clean latent over the UNet's output, where the noisy latent is zero."""
    if prediction_type == "sample":
        return 1.0
    rest = math.sqrt(1 - alpha)
    return -rest if prediction_type == "v_prediction" else -rest / math.sqrt(alpha)


@torch.no_grad()
def _ignore_noise(unet: "UNet2DConditionModel", latent_channels: int) -> None:
    """Let the first layer take twice the latent channels, and nothing from the second half."""
    first = unet.conv_in
    weight = first.weight.new_zeros(first.out_channels, 2 * latent_channels, *first.kernel_size)
    weight[:, :latent_channels] = first.weight[:, :latent_channels]
    first.weight = nn.Parameter(weight)
    first.in_channels = 2 * latent_channels
    unet.register_to_config(in_channels=2 * latent_channels)
