"""How a diffusion network predicts: the steps of DDIM from noise to a clean latent."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from geometry.errors import InputError
from lightning_modules.networks.ddim import make_ddim
from lightning_modules.networks.parameterization import clean_from_answer, clip_like_scheduler

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    from lightning_modules.networks.stable_diffusion import StableDiffusion

Spacing = Literal["leading", "trailing"]
StartNoise = Literal["gaussian", "pyramid", "zeros"]
End = Literal["clean", "scheduler"]


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
            if getattr(self, name) < 1:
                raise InputError(f"sampling.{name} must be at least 1, got {getattr(self, name)}.")
        for name, choices in (("spacing", Spacing), ("noise", StartNoise), ("end", End)):
            if getattr(self, name) not in get_args(choices):
                known = ", ".join(get_args(choices))
                raise InputError(f"there is no sampling.{name} {getattr(self, name)!r}; choose one of {known}.")

    def make_scheduler(self, network: "StableDiffusion") -> "DDIMScheduler":
        """Return diffusers' DDIM scheduler with this spacing and the noise schedule of a network, timesteps set.

        Args:
            network: the network that is to be sampled from.

        Raises:
            InputError: the schedule has not so many timesteps.
        """
        scheduler = make_ddim(network.scheduler.config, timestep_spacing=self.spacing)
        num_timesteps = scheduler.config["num_train_timesteps"]
        if self.num_steps <= num_timesteps:
            scheduler.set_timesteps(self.num_steps)
        if self.num_steps > num_timesteps or scheduler.timesteps.max() >= num_timesteps:
            raise InputError(
                f"sampling.num_steps {self.num_steps} is too large: the noise schedule has {num_timesteps} timesteps, "
                f"and {self.spacing} spacing of as many steps would go beyond them."
            )
        # For 62 of the possible numbers of trailing steps, rounding makes diffusers append a timestep -1.
        scheduler.timesteps = scheduler.timesteps[: self.num_steps]
        return scheduler


@torch.no_grad()
def sample_latent(network: "StableDiffusion", image_latent: Tensor, noise: Tensor, sampling: Sampling) -> Tensor:
    """Return the latent that a network denoises noise to, without gradient.

    Args:
        network: a network that takes a noisy latent beside the image latent.
        image_latent: (B,C,h,w), scaled latent of the image.
        noise: (B,C,h,w), noise of unit variance or zeros.
        sampling: steps, spacing and end; its noise and ensemble_size are the caller's business.

    Returns:
        (B,C,h,w), scaled latent.

    Raises:
        InputError: the schedule has not so many timesteps.
    """
    scheduler = sampling.make_scheduler(network)
    latent = noise
    for number, timestep in enumerate(scheduler.timesteps, start=1):
        answer = network.answer(torch.cat([image_latent, latent], dim=1), timestep).to(latent.dtype)
        if number == sampling.num_steps and sampling.end == "clean":
            alpha = scheduler.alphas_cumprod[timestep].item()
            clean = clean_from_answer(answer, latent, alpha, scheduler.config["prediction_type"])
            return clip_like_scheduler(clean, scheduler.config)
        latent = scheduler.step(answer, timestep, latent, return_dict=False)[0]
    return latent
