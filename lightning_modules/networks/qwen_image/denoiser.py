"""Qwen-Image's transformer as a denoiser."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_modules.networks.denoiser import Denoiser
from lightning_modules.networks.packing import pack, unpack

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel

_TIMESTEPS = 1000


class QwenImageDenoiser(Denoiser):
    """A transformer of tokens that hold two by two latent pixels each, beside the tokens of a prompt.

    Args:
        model: The transformer, as wide as the input mode needs.
        conditioning: prompt_embedding (1,L,D), without padding.
        **options: Those of every denoiser.
    """

    latent_multiple = 2
    pixels_in_channels = 4
    pixels_out_channels = 1
    untraceable = "places its prompt by the longer side of an image, so that no program holds both wide and high ones"
    first_layer = "img_in"
    input_modes = ("concatenated", "sequence", "image", "residual")
    lora_targets = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    )

    model: "QwenImageTransformer2DModel"

    def idle_layers(self, model: nn.Module) -> Sequence[str]:
        """Return what makes the last block's text, which goes nowhere."""
        last = f"transformer_blocks.{len(model.transformer_blocks) - 1}"  # type: ignore[arg-type]
        return [f"{last}.{name}" for name in ("attn.add_q_proj", "attn.norm_added_q", "attn.to_add_out", "txt_mlp")]

    def model_output(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return the velocity: see ``Denoiser``."""
        batch, _, height, width = latents.shape
        seen = self.seen(latents)
        velocity = self.model(
            torch.cat([pack(latent) for latent in seen], dim=1),
            encoder_hidden_states=conditioning["prompt_embedding"].expand(batch, -1, -1),
            timestep=timesteps.expand(batch).to(latents.dtype) / _TIMESTEPS,
            img_shapes=[[(1, height // 2, width // 2)] * len(seen)] * batch,
            return_dict=False,
        )[0]
        return self.said(velocity, (height // 2) * (width // 2), lambda part: unpack(part, height, width))
