"""FLUX.2's autoencoder, whose latents are normalised by the statistics of a batch norm."""

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from lightning_modules.networks.codec import Codec

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

_PATCH = 2


class Flux2Codec(Codec):
    """diffusers' ``AutoencoderKLFlux2``: latents whose channels hold two by two pixels of the encoder's.

    Convention:
        (latent - running_mean) / sqrt(running_var + eps), per channel and place in the patch.

    Args:
        model: The autoencoder.
        **options: Those of every codec.
    """

    model: "AutoencoderKLFlux2"

    def __init__(self, model: "AutoencoderKLFlux2", **options: Any) -> None:  # noqa: ANN401
        norm: Any = model.bn
        self.mean = norm.running_mean.tolist()
        self.std = (norm.running_var + model.config["batch_norm_eps"]).sqrt().tolist()
        super().__init__(model, **options)

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of a side make one latent pixel."""
        return _PATCH * 2 ** (len(self.model.config["block_out_channels"]) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return _PATCH**2 * self.model.config["latent_channels"]

    def latent_mean(self, image: Tensor) -> Tensor:
        """Return the mean latent (B,C,h,w) of an image (B,3,H,W) as the encoder gives it, not normalised."""
        return F.pixel_unshuffle(self.model.encode(image).latent_dist.mean, _PATCH)

    def decoded(self, latent: Tensor) -> Tensor:
        """Return the image (B,3,H,W) that the decoder makes of a latent (B,C,h,w) that is not normalised."""
        return self.model.decode(F.pixel_shuffle(latent, _PATCH)).sample
