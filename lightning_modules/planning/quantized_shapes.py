"""Linear layers whose frozen weights have 4 bits, as far as memory goes: what is kept, and what is unpacked when."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.networks.quantization import BLOCK, can_be_quantized

# Every block of weights has a scale of 8 bits, and every group of so many scales one of 32.
_GROUP = 256
_LEVELS = 16  # that 4 bits can name; each layer holds their values
_SCALE_LEVELS = 256  # as many for 8 bits


class PackedLinear(nn.Module):
    """A frozen linear layer whose weight is unpacked for every product, forward and backward, and kept packed.

    Args:
        layer: the layer that it stands for.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        count, device = layer.weight.numel(), layer.weight.device
        blocks = -(-count // BLOCK)
        held = {
            "packed": torch.empty(-(-count // 2), dtype=torch.uint8, device=device),
            "scales": torch.empty(blocks, dtype=torch.uint8, device=device),
            "scales_of_scales": torch.empty(-(-blocks // _GROUP), device=device),
            "levels": torch.empty(_LEVELS, device=device),
            "levels_of_scales": torch.empty(_SCALE_LEVELS, device=device),
            "offset": torch.empty((), device=device),
        }
        for name, tensor in held.items():
            self.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
        self.bias = layer.bias

    def forward(self, input: Tensor) -> Tensor:
        """Return the product (...,out) with tokens (...,in)."""
        half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else input.dtype
        product = _PackedProduct.apply(input.to(half), self.packed, (self.out_features, self.in_features))
        return product if self.bias is None else product + self.bias.to(half)


def pack_frozen_linears(blocks: Sequence[nn.Module]) -> None:
    """Replace the frozen linear layers within blocks that are stored in 4 bits by packed ones.

    Args:
        blocks: parts of a model without weights.
    """
    for block in blocks:
        for name, layer in [*block.named_modules()]:
            if can_be_quantized(layer) and not layer.weight.requires_grad:
                block.set_submodule(name, PackedLinear(layer))


class _PackedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, packed: Tensor, shape: tuple[int, int]) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(packed)
        ctx.shape = shape
        return F.linear(tokens, tokens.new_empty(shape))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return gradient @ gradient.new_empty(ctx.shape), None, None
