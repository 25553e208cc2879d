"""How a diffusion network predicts: the steps of its noise process, from noise to a clean latent."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from geometry.errors import InputError, check_choice
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.noise_process import Spacing

StartNoise = Literal["gaussian", "pyramid", "zeros"]
End = Literal["clean", "scheduler"]

_MOST = 10_000


@dataclass(frozen=True)
class Sampling:
    """How a diffusion estimator predicts.

    The defaults are those of today's Marigold checkpoints; the first Marigold took 50 leading steps and 10 members.

    Args:
        num_steps: Number of denoising steps.
        spacing: Which timesteps those are: trailing starts at the last one, 999, as training's noisiest latents do;
            leading starts below it, at timestep 1 for a single step, and still feeds pure noise (the flaw that the
            paper found).
        ensemble_size: Number of predictions, each from its own noise, that are combined into one.
        noise: What the first step is given to denoise: gaussian, pyramid (multi-resolution) or zeros.
        end: What the last step yields: clean is its clean latent, as in the paper's training; scheduler is the latent
            of the previous timestep, as in diffusers' pipelines, which keeps a little noise unless the scheduler's
            set_alpha_to_one is true.
    """

    num_steps: int = 4
    spacing: Spacing = "trailing"
    ensemble_size: int = 1
    noise: StartNoise = "gaussian"
    end: End = "clean"

    def __post_init__(self) -> None:
        for name in ("num_steps", "ensemble_size"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise InputError(f"sampling.{name} must be at least 1 and at most {_MOST}, got {getattr(self, name)}.")
        for name, choices in (("spacing", Spacing), ("noise", StartNoise), ("end", End)):
            check_choice(f"sampling.{name}", getattr(self, name), get_args(choices))


@torch.no_grad()
def sample_latent(network: LatentNetwork, image_latent: Tensor, noise: Tensor, sampling: Sampling) -> Tensor:
    """Return the latent that a network denoises noise to, without gradient.

    Args:
        network: a network that takes a noisy latent beside the image latent.
        image_latent: (B,C,h,w), normalised latent of the image.
        noise: (B,C,h,w), noise of unit variance or zeros.
        sampling: steps, spacing and end; its noise and ensemble_size are the caller's business.

    Returns:
        (B,C,h,w), normalised latent.

    Raises:
        InputError: the schedule has no such steps.
    """
    num_tokens = image_latent[0, 0].numel() // network.denoiser.latent_multiple**2
    sampler = network.noise_process.make_sampler(sampling.num_steps, sampling.spacing, num_tokens)
    latent = noise
    for number, timestep in enumerate(sampler, start=1):
        output = network.model_output(network.denoiser.input_of(image_latent, latent), timestep).to(latent.dtype)
        if number == sampling.num_steps and sampling.end == "clean":
            return sampler.predict_x0(output, latent, timestep.item())
        latent = sampler.step(output, timestep, latent)
    return latent
