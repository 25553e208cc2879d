"""Self-attention in which the outputs of one image see each other."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


class JointSelfAttention:
    """Attention of diffusers whose keys and values are those of all outputs of an image.

    Args:
        num_outputs: how many outputs a batch holds, one after the other: first all images of the first output.

    Source:
        Fu et al., "GeoWizard", ECCV 2024: the geometry cross-attention.
    """

    def __init__(self, num_outputs: int) -> None:
        self.num_outputs = num_outputs

    def __call__(
        self,
        attn: Any,  # noqa: ANN401 - diffusers' Attention
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **options: Any,  # noqa: ANN401
    ) -> Tensor:
        """Return the attention's output (P*B,N,C) for tokens (P*B,N,C) of P outputs."""
        query, key, value = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        query, key, value = (_by_head(each, attn.heads) for each in (query, self._shared(key), self._shared(value)))
        mixed = F.scaled_dot_product_attention(query, key, value)
        mixed = mixed.transpose(1, 2).flatten(2).to(query.dtype)
        return attn.to_out[1](attn.to_out[0](mixed))

    def _shared(self, tokens: Tensor) -> Tensor:
        """Return (P*B,P*N,C): for every image of every output the tokens of all outputs of that image."""
        parts = tokens.unflatten(0, (self.num_outputs, -1))
        together = torch.cat(list(parts.unbind()), dim=1)
        return together.repeat(self.num_outputs, 1, 1)


def join_self_attention(unet: "UNet2DConditionModel", num_outputs: int) -> None:
    """Let all self-attention of a UNet see all outputs of an image; no weights are added.

    Args:
        unet: the UNet to change.
        num_outputs: how many outputs a batch holds.
    """
    for name, module in unet.named_modules():
        if name.rpartition(".")[2] == "attn1":
            module.set_processor(JointSelfAttention(num_outputs))


def _by_head(tokens: Tensor, num_heads: int) -> Tensor:
    return tokens.unflatten(2, (num_heads, -1)).transpose(1, 2)
