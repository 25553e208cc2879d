"""Layers of a UNet whose answers never change once it is trained: they are computed once and kept.

A single-step network asks its UNet always for the same timestep and under the same prompt. So the embedding of the
timestep, what every residual block makes of it, and the keys and values of the prompt are constants.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

# Ends of the names of the layers that see nothing but timestep and prompt.
_ENDS = (".time_embedding", ".time_emb_proj", ".attn2.to_k", ".attn2.to_v")


class Constant(nn.Module):
    """A layer that gives every image of a batch the same answer.

    Args:
        answer: (1,...), the answer for one image.
    """

    answer: Tensor

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.register_buffer("answer", answer, persistent=False)

    def forward(self, signal: Tensor, *_: Tensor | None) -> Tensor:
        """Return the answer for a batch.

        Args:
            signal: (B,...), what the layer was given; only B and, under autocast, the precision matter.
        """
        answer = self.answer.expand(len(signal), *self.answer.shape[1:])
        kind = signal.device.type
        return answer.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else answer


@torch.no_grad()
def hold_constants(unet: nn.Module, run: Callable[[], object]) -> None:
    """Replace the layers of a UNet that see nothing but timestep and prompt by what they answer.

    The UNet can then neither be trained nor saved, nor asked for another timestep or prompt.

    Args:
        unet: a UNet of diffusers, which is changed.
        run: calls the UNet for one image, with the timestep and the prompt that it will see from now on.
    """
    layers = {name: layer for name, layer in unet.named_modules() if f".{name}".endswith(_ENDS)}
    answers: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(_layer: nn.Module, _signal: tuple[Tensor, ...], answer: Tensor) -> None:
            answers[name] = answer.clone()

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(keep(name)).remove)
        run()
    for name, answer in answers.items():
        parent, _, own_name = name.rpartition(".")
        setattr(unet.get_submodule(parent), own_name, Constant(answer))
