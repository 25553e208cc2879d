"""The networks: the tiny base, a twin with random UNet weights, and a memory for what the frozen encoder says."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules import StableDiffusion
from lightning_modules.networks.latent_network import LatentNetwork

TINY_BASE = Path(__file__).parents[2] / "checkpoints" / "tiny-stable-diffusion"


class RemembersLatents(LatentNetwork):
    """A network whose frozen encoder sees every image once; comes before the network's class.

    Latents are those of the encoder to float32 rounding: an image is encoded beside others than it would be without
    the memory, and convolutions may then sum in another order. It spares half the time of a diffusion step, which
    encodes the image and the truth.

    Args:
        latents: the memory, by the digest of the image; may be shared among networks with the same VAE.
        **options: those of the network.
    """

    def __init__(self, latents: dict[bytes, Tensor], **options: Any) -> None:  # noqa: ANN401
        super().__init__(**options)
        self._latents = latents

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Return the scaled mean latent of an image (B,3,H,W) in [-1, 1], (B,C,h,w), without gradient."""
        digests = [hashlib.blake2b(one.contiguous().cpu().numpy(), digest_size=16).digest() for one in image]
        new = [number for number, digest in enumerate(digests) if digest not in self._latents]
        if new:
            for number, latent in zip(new, super().encode(image[new]), strict=True):
                self._latents[digests[number]] = latent.clone()
        return torch.stack([self._latents[digest] for digest in digests])


class RememberingStableDiffusion(RemembersLatents, StableDiffusion):
    """A ``StableDiffusion`` that remembers latents."""


def write_random_base(folder: Path, seed: int) -> None:
    """Write the tiny base with random UNet weights in place of its own.

    Args:
        folder: where to.
        seed: seed of the weights.
    """
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TINY_BASE, folder, ignore=shutil.ignore_patterns("unet"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(str(TINY_BASE), subfolder="unet"))
    unet.save_pretrained(folder / "unet")
