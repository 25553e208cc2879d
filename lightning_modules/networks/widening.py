"""A denoiser's first layer, as wide as what the network gives it."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.base_files import Base


def check_output(
    model: Any,  # noqa: ANN401 - diffusers' mixins, which nn.Module does not show
    latent_channels: int,
    base: Base,
    part: str,
) -> None:
    """Check that a model says as many channels as the VAE decodes.

    Args:
        model: the model.
        latent_channels: what the model's out_channels are for the VAE's latents.
        base: the base, for the message.
        part: the model's part.

    Raises:
        InputError: it says others.
    """
    found = vars(model).get("out_channels") or model.config.get("out_channels") or model.config["in_channels"]
    if found != latent_channels:
        raise base.refusal(
            f"{part}/config.json",
            f"describes a model with out_channels: {found}, but the VAE of this base decodes latents that would need "
            f"{latent_channels}. Needed: a VAE and a {part} that were made for each other.",
        )


def fit_first_layer(
    model: Any,  # noqa: ANN401 - diffusers' mixins, which nn.Module does not show
    layer: str,
    latent_channels: int,
    num_latents: int,
    base: Base,
    part: str,
    setting: str,
    channels_first: bool = True,
) -> bool:
    """Give a model as many input channels as its input mode needs, and say whether it had to be widened.

    Convention:
        A widened layer sees both latents alike: its weight is repeated and halved, so that it says what it said where
        both are equal.

    Args:
        model: the model to change; its config is changed too, so that it can be saved and loaded again.
        layer: name of the layer that sees the latents, linear or a convolution.
        latent_channels: what the config's in_channels is for one latent.
        num_latents: how many latents are concatenated: 1 or 2.
        base: the base, for the message.
        part: the model's part.
        setting: what asks for so many latents, for the message: "noise: none".
        channels_first: a linear layer's inputs are sorted by channel, then by pixel of the patch; False is the
            other way about.

    Raises:
        InputError: the model takes another number of channels.
    """
    found, needed = model.config["in_channels"], num_latents * latent_channels
    if found == needed:
        return False
    if num_latents == 1 or 2 * found != needed:
        raise base.refusal(
            f"{part}/config.json",
            f"describes a model that takes {found} channels, but {setting} with latents of this base needs {needed}"
            + (f" (or {needed // 2}, which is widened)." if num_latents == 2 else "."),
        )
    first = model.get_submodule(layer)
    if isinstance(first, nn.Conv2d):
        first.weight = nn.Parameter(_doubled(first.weight.detach(), 1))
        first.in_channels *= 2
    else:
        weight = first.weight.detach()
        by_channel = weight.unflatten(1, (found, -1) if channels_first else (-1, found))
        first.weight = nn.Parameter(_doubled(by_channel, 1 if channels_first else 2).flatten(1))
        first.in_features *= 2
    changes = {"in_channels": needed}
    if "out_channels" in model.config and model.config["out_channels"] is None:  # which stands for in_channels
        changes["out_channels"] = found
    model.register_to_config(**changes)
    return True


def _doubled(weight: Tensor, axis: int) -> Tensor:
    return torch.cat([weight, weight], dim=axis) / 2
