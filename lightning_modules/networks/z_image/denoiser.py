"""Z-Image's transformer as a denoiser."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_modules.networks.denoiser import Denoiser

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

_TIMESTEPS = 1000
_PATCH = 2


class ZImageDenoiser(Denoiser):
    """A transformer that takes a list of images of one frame, and patches them itself.

    Convention:
        Its time is 0 at pure noise and 1 at the image, and it says clean - noise; both are turned about here.

    Args:
        model: The transformer, as wide as the input mode needs.
        conditioning: prompt_embedding (1,L,D), without padding.
        **options: Those of every denoiser.
    """

    latent_multiple = _PATCH
    untraceable = "takes images one by one and pads each by the number of its tokens, so that no program holds any size"
    first_layer = f"all_x_embedder.{_PATCH}-1"
    channels_first = False
    lora_targets = (
        *("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
        *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    )

    model: "ZImageTransformer2DModel"

    def __init__(self, model: "ZImageTransformer2DModel", conditioning: Mapping[str, Tensor], **options: Any) -> None:  # noqa: ANN401
        super().__init__(model, conditioning, **options)
        self.largest_latent: int | None = _PATCH * min(model.config["axes_lens"][1:])

    def model_output(self, latents: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return the velocity: see ``Denoiser``."""
        batch = latents.shape[0]
        frames = list(latents[:, :, None])
        time = (_TIMESTEPS - timesteps.expand(batch).to(latents.dtype)) / _TIMESTEPS
        directions = self.model(frames, time, [conditioning["prompt_embedding"][0]] * batch, return_dict=False)[0]
        return -torch.stack(directions)[:, :, 0]

    @property
    def repeated_blocks(self) -> tuple[str, ...]:
        """Names of the classes of blocks."""
        return ("ZImageTransformerBlock",)
