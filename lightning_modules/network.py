"""The latent-diffusion network: a frozen VAE around a trainable backbone that predicts in a single step."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from geometry.errors import InputError
from lightning_modules.noise import NoiseKind, draw_noise

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL


class LatentNetwork(nn.Module, ABC):
    """Image in, decoded image out: encode, predict the clean latent in one step, decode.

    A backbone is a subclass with one method, ``clean_latent``. The VAE is frozen and stays in eval mode; the encoder
    runs without gradient, the decoder keeps its graph.

    Args:
        vae: The autoencoder.
        noise: What takes the place of the latent that a diffusion model would denoise.
        decoder_checkpointing: Recompute the decoder's activations in the backward pass to save memory.
    """

    def __init__(self, vae: "AutoencoderKL", noise: NoiseKind, decoder_checkpointing: bool) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False)
        self.noise: NoiseKind = noise
        if decoder_checkpointing:
            vae.enable_gradient_checkpointing()
        self.train()

    @property
    def size_factor(self) -> int:
        """How many pixels make one latent pixel; image sizes must be multiples of it."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the backbone; the VAE stays in eval mode.

        Args:
            mode: True for training.
        """
        super().train(mode)
        self.vae.eval()
        return self

    @abstractmethod
    def clean_latent(self, image_latent: Tensor, noise: Tensor) -> Tensor:
        """Return the clean latent of the prediction.

        Args:
            image_latent: (B,C,h,w), scaled latent of the image.
            noise: (B,C,h,w), latent noise or zeros.

        Returns:
            (B,C,h,w), scaled latent.
        """

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Return the scaled mean latent of an image, without gradient.

        Args:
            image: (B,3,H,W) in [-1, 1].

        Returns:
            (B,C,h,w).

        Raises:
            InputError: the VAE's factor does not divide height and width.
        """
        self.check_size(*image.shape[-2:])
        return self.vae.config["scaling_factor"] * self.vae.encode(image).latent_dist.mean

    def check_size(self, height: int, width: int) -> None:
        """Check that the network can take images of a size.

        Args:
            height: height in pixels.
            width: width in pixels.

        Raises:
            InputError: the VAE's factor does not divide both.
        """
        if height % self.size_factor or width % self.size_factor:
            raise InputError(
                f"images of {height}x{width} pixels (height x width) do not fit the VAE: both must be multiples of "
                f"its factor {self.size_factor}. Prepare them at such a size."
            )

    def decode(self, latent: Tensor) -> Tensor:
        """Return the decoded image, with its graph.

        Args:
            latent: (B,C,h,w), scaled latent.

        Returns:
            (B,3,H,W), nominally in [-1, 1] but not clamped.
        """
        return self.vae.decode(latent / self.vae.config["scaling_factor"]).sample

    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the decoded prediction for an image.

        Args:
            image: (B,3,H,W) in [-1, 1].
            seeds: one seed per image for the latent noise; None is 0 for all. Unused without noise.

        Returns:
            (B,3,H,W), nominally in [-1, 1] but not clamped.
        """
        image_latent = self.encode(image)
        noise = draw_noise(self.noise, image_latent, [0] * len(image) if seeds is None else seeds)
        return self.decode(self.clean_latent(image_latent, noise))
