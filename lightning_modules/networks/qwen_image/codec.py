"""Qwen-Image's autoencoder: made for videos, used for one frame, normalised by mean and deviation per channel."""

from typing import TYPE_CHECKING, Any

from torch import Tensor

from lightning_modules.networks.codec import Codec

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage


class QwenImageCodec(Codec):
    """diffusers' ``AutoencoderKLQwenImage`` for single frames: (B,C,h,w) latents.

    Convention:
        (latent - latents_mean) / latents_std per channel. A frame alone passes encoder and decoder as the first frame
        of a video does; the decoder's result is not clamped, so that its gradient does not end at the borders.

    Args:
        model: The autoencoder.
        **options: Those of every codec.
    """

    repeated_blocks = ("QwenImageResidualBlock", "QwenImageAttentionBlock")

    model: "AutoencoderKLQwenImage"

    def __init__(self, model: "AutoencoderKLQwenImage", **options: Any) -> None:  # noqa: ANN401
        super().__init__(model, **options)
        self.mean = model.config["latents_mean"]
        self.std = model.config["latents_std"]
        for name, layer in model.named_modules():
            if name.endswith("time_conv"):  # between frames; a single one has no neighbours
                layer.requires_grad_(False)

    @property
    def pixels_per_latent(self) -> int:
        """How many pixels of a side make one latent pixel."""
        return 2 ** len(self.model.config["temperal_downsample"])

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.model.config["z_dim"]

    def latent_mean(self, image: Tensor) -> Tensor:
        """Return the mean latent (B,C,h,w) of an image (B,3,H,W) as the encoder gives it, not normalised."""
        moments = self.model.quant_conv(self.model.encoder(image[:, :, None]))
        return moments[:, : self.latent_channels, 0]

    def decoded(self, latent: Tensor) -> Tensor:
        """Return the image (B,3,H,W) that the decoder makes of a latent (B,C,h,w) that is not normalised."""
        return self.model.decoder(self.model.post_quant_conv(latent[:, :, None]))[:, :, 0]
