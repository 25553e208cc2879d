"""Stable Diffusion XL's UNet as a denoiser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_modules.networks.stable_diffusion.denoiser import UNetDenoiser

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


class StableDiffusionXLDenoiser(UNetDenoiser):
    """A UNet under the empty prompt that is told that images are whole and of the size that they have.

    Args:
        model: The UNet, as wide as the input mode needs.
        conditioning: prompt_embedding (1,L,D) and pooled_prompt_embedding (1,P).
        pixels_per_latent: Pixels of a side of one latent pixel.
        **options: Those of every denoiser.
    """

    def __init__(
        self,
        model: "UNet2DConditionModel",
        conditioning: Mapping[str, Tensor],
        pixels_per_latent: int,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(model, conditioning, **options)
        self._pixels_per_latent = pixels_per_latent

    def model_output(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return the UNet's output, which is what the scheduler's prediction_type says: see ``Denoiser``."""
        batch, _, *sides = latents.shape
        height, width = (torch.full((), side * self._pixels_per_latent, device=latents.device) for side in sides)
        corner = torch.zeros_like(height)
        # Height and width before training cut images; where it cut them; and what was left.
        sizes = torch.stack([height, width, corner, corner, height, width]).to(latents.dtype)
        added = {
            "text_embeds": conditioning["pooled_prompt_embedding"].expand(batch, -1),
            "time_ids": sizes.expand(batch, -1),
        }
        prompt = conditioning["prompt_embedding"].expand(batch, -1, -1)
        return self.model(latents, timesteps, encoder_hidden_states=prompt, added_cond_kwargs=added, return_dict=False)[
            0
        ]
