"""Layers of a UNet whose outputs never change once it is trained: they are computed once and kept.

A single-step network asks its UNet always for the same timestep and under the same prompt. So the embedding of the
timestep, what every residual block makes of it, and the keys and values of the prompt are constants.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from lightning_modules import StableDiffusion

# Ends of the names of the layers that see nothing but timestep and prompt.
_ENDS = (".time_embedding", ".time_emb_proj", ".attn2.to_k", ".attn2.to_v")


class Constant(nn.Module):
    """A layer that gives every image of a batch the same output.

    Args:
        output: (1,...), the output for one image.
    """

    output: Tensor

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.register_buffer("output", output, persistent=False)

    def forward(self, signal: Tensor, *_: Tensor | None) -> Tensor:
        """Return the output for a batch.

        Args:
            signal: (B,...), what the layer was given; only B and, under autocast, the precision matter.
        """
        output = self.output.expand(len(signal), *self.output.shape[1:])
        kind = signal.device.type
        return output.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else output


@torch.no_grad()
def hold_constants(network: StableDiffusion) -> None:
    """Replace the layers of a network's UNet that see nothing but timestep and prompt by what they put out.

    The network can then only predict, in a single step; it can neither be trained nor saved.

    Args:
        network: a network, which is changed.
    """
    unet = network.unet
    side_px = 2 ** len(unet.config["block_out_channels"])
    latent = network.prompt_embedding.new_zeros(1, unet.config["in_channels"], side_px, side_px)
    layers = {name: layer for name, layer in unet.named_modules() if f".{name}".endswith(_ENDS)}
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_layer: nn.Module, _signal: tuple[Tensor, ...], output: Tensor) -> None:
            outputs[name] = output.clone()

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(keep(name)).remove)
        network.model_output(latent, network.timestep)
    for name, output in outputs.items():
        parent, _, own_name = name.rpartition(".")
        setattr(unet.get_submodule(parent), own_name, Constant(output))
