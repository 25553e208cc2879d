"""FLUX.2's transformer as a denoiser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_modules.networks.denoiser import Denoiser
from lightning_modules.networks.packing import grid

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

_TIMESTEPS = 1000
# Where the first image that an editor is shown stands in time; what is denoised stands at 0.
_IMAGE_TIME = 10


class Flux2Denoiser(Denoiser):
    """A transformer of one token per latent pixel, which knows its time, row, column and place in the prompt.

    Args:
        model: The transformer, as wide as the input mode needs.
        conditioning: prompt_embedding (1,L,D).
        **options: Those of every denoiser.
    """

    first_layer = "x_embedder"
    input_modes = ("concatenated", "sequence", "image", "residual")
    lora_targets = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("linear_in", "linear_out", "attn.to_qkv_mlp_proj", "attn.to_out"),
    )

    model: "Flux2Transformer2DModel"

    def model_output(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return the velocity: see ``Denoiser``."""
        batch, _, height, width = latents.shape
        prompt = conditioning["prompt_embedding"].expand(batch, -1, -1)
        seen = self.seen(latents)
        places = torch.cat([_places(_IMAGE_TIME * number, height, width, latents) for number in range(len(seen))])
        word = torch.arange(prompt.shape[1], device=latents.device)
        velocity = self.model(
            torch.cat([latent.flatten(2).transpose(1, 2) for latent in seen], dim=1),
            encoder_hidden_states=prompt,
            timestep=timesteps.expand(batch).to(latents.dtype) / _TIMESTEPS,
            img_ids=places,
            txt_ids=torch.stack([torch.zeros_like(word)] * 3 + [word], dim=1),
            guidance=None,
            return_dict=False,
        )[0]
        return self.said(velocity, height * width, lambda part: part.transpose(1, 2).reshape(batch, -1, height, width))


def _places(time: int, height: int, width: int, like: Tensor) -> Tensor:
    """Return the places of an image's tokens, (h*w,4) int64: time, row, column, and 0."""
    rows, columns = grid(height, width, like.device)
    return torch.stack([torch.full_like(rows, time), rows, columns, torch.zeros_like(rows)], dim=1)
