"""FLUX.1's transformer as a denoiser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_modules.networks.denoiser import Denoiser
from lightning_modules.networks.packing import grid, pack, unpack

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel

_TIMESTEPS = 1000


class FluxDenoiser(Denoiser):
    """A transformer of tokens that hold two by two latent pixels each, and know their places.

    Args:
        model: The transformer, as wide as the input mode needs.
        conditioning: prompt_embedding (1,L,D) and pooled_prompt_embedding (1,P).
        guidance: Guidance scale that it is told; None where it takes none.
        **options: Those of every denoiser.
    """

    latent_multiple = 2
    pixels_in_channels = 4
    first_layer = "x_embedder"
    input_modes = ("concatenated", "sequence", "image", "residual")
    lora_targets = (
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp", "proj_out"),
    )

    model: "FluxTransformer2DModel"

    def __init__(
        self,
        model: "FluxTransformer2DModel",
        conditioning: Mapping[str, Tensor],
        guidance: float | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(model, conditioning, **options)
        self.guidance = guidance

    def model_output(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return the velocity: see ``Denoiser``."""
        batch, _, height, width = latents.shape
        prompt = conditioning["prompt_embedding"].expand(batch, -1, -1)
        seen = self.seen(latents)
        places = torch.cat([_places(number, height, width, latents) for number in range(len(seen))])
        velocity = self.model(
            torch.cat([pack(latent) for latent in seen], dim=1),
            encoder_hidden_states=prompt,
            pooled_projections=conditioning["pooled_prompt_embedding"].expand(batch, -1),
            timestep=timesteps.expand(batch).to(latents.dtype) / _TIMESTEPS,
            img_ids=places,
            txt_ids=places.new_zeros(prompt.shape[1], 3),
            guidance=None if self.guidance is None else places.new_full((batch,), self.guidance),
            return_dict=False,
        )[0]
        return self.said(velocity, (height // 2) * (width // 2), lambda part: unpack(part, height, width))


def _places(number: int, height: int, width: int, like: Tensor) -> Tensor:
    """Return the places of an image's tokens, (h/2*w/2,3) float32: number of the image, row, column."""
    rows, columns = grid(height // 2, width // 2, like.device)
    return torch.stack([torch.full_like(rows, number), rows, columns], dim=1).float()
