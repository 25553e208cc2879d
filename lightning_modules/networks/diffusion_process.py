"""Diffusion (DDPM): noise by a schedule of alphas, and denoisers that predict v, the noise or the clean latent."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from geometry.errors import InputError
from lightning_modules.networks.ddim import make_ddim
from lightning_modules.networks.noise import seed_from
from lightning_modules.networks.noise_process import MANY_TOKENS, NoiseProcess, Sampler, Spacing, per_image

PredictionType = Literal["epsilon", "v_prediction", "sample"]
PREDICTION_TYPES = get_args(PredictionType)


class DiffusionProcess(NoiseProcess):
    """The noise process of Stable Diffusion: noisy = sqrt(alpha) clean + sqrt(1 - alpha) noise.

    diffusers' ``add_noise`` and ``get_velocity`` say the same, but move the schedule to the device on first use, wait
    for the timesteps, and are missing in some schedulers.

    Args:
        scheduler: A scheduler of diffusers with ``alphas_cumprod`` and a prediction_type of ``PREDICTION_TYPES``.
    """

    def __init__(self, scheduler: Any) -> None:  # noqa: ANN401
        super().__init__(scheduler)
        self.prediction_type: str = scheduler.config["prediction_type"]
        self._alphas: list[float] = scheduler.alphas_cumprod.tolist()

    @property
    def last_timestep(self) -> int:
        """The timestep of pure noise, at which a single step is taken."""
        return self.num_timesteps - 1

    @property
    def last_alpha(self) -> float:
        """Share of signal that is left at the last timestep."""
        return self._alphas[-1]

    def draw_timesteps(self, seeds: Sequence[int]) -> Tensor:
        """Return a timestep per seed, (B,) int64 on the CPU."""
        return torch.tensor([seed_from(seed, "timestep") % self.num_timesteps for seed in seeds])

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return noisy latents: see ``NoiseProcess``."""
        signal, rest = self._amplitudes(timesteps, clean)
        return signal * clean + rest * noise

    def training_target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what a denoiser learns to say of noisy latents: see ``NoiseProcess``."""
        if self.prediction_type == "v_prediction":
            signal, rest = self._amplitudes(timesteps, clean)
            return signal * noise - rest * clean
        return noise if self.prediction_type == "epsilon" else clean

    def predict_x0(self, model_output: Tensor, sample: Tensor, timestep: float) -> Tensor:
        """Return the clean latent of a denoiser's output, clipped as the scheduler would: see ``NoiseProcess``."""
        return _predict_x0(model_output, sample, self._alphas[int(timestep)], self.scheduler.config)

    def make_sampler(self, num_steps: int, spacing: Spacing, num_tokens: int = MANY_TOKENS) -> Sampler:
        """Return the steps of DDIM: see ``NoiseProcess``."""
        scheduler = make_ddim(self.scheduler.config, timestep_spacing=spacing)
        if num_steps <= self.num_timesteps:
            scheduler.set_timesteps(num_steps)
        if num_steps > self.num_timesteps or scheduler.timesteps.max() >= self.num_timesteps:
            raise InputError(
                f"sampling.num_steps {num_steps} is too large: the noise schedule has {self.num_timesteps} timesteps, "
                f"and {spacing} spacing of as many steps would go beyond them."
            )
        # For 62 of the possible numbers of trailing steps, rounding makes diffusers append a timestep -1.
        scheduler.timesteps = scheduler.timesteps[:num_steps]
        return _DDIMSampler(self, scheduler)

    def _amplitudes(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the amplitudes of signal and noise, (B,1,1,1)."""
        alphas = per_image(self.scheduler.alphas_cumprod[timesteps], like)
        return alphas.sqrt(), (1 - alphas).sqrt()


class _DDIMSampler(Sampler):
    """The steps of DDIM, with the alphas of its own scheduler."""

    def predict_x0(self, model_output: Tensor, sample: Tensor, timestep: float) -> Tensor:
        """Return the clean latent that a denoiser's output stands for."""
        alpha = self.scheduler.alphas_cumprod[int(timestep)].item()
        return _predict_x0(model_output, sample, alpha, self.scheduler.config)


def _predict_x0(model_output: Tensor, sample: Tensor, alpha: float, config: dict[str, Any]) -> Tensor:
    signal, rest = math.sqrt(alpha), math.sqrt(1 - alpha)
    prediction_type = config["prediction_type"]
    if prediction_type == "v_prediction":
        clean = signal * sample - rest * model_output
    elif prediction_type == "epsilon":
        clean = (sample - rest * model_output) / signal
    else:
        clean = model_output
    return clip_like_scheduler(clean, config)


def clip_like_scheduler(latent: Tensor, config: dict[str, Any]) -> Tensor:
    """Clip a clean latent as its scheduler would.

    Args:
        latent: (B,C,h,w), a clean latent.
        config: the scheduler's config.
    """
    if config.get("thresholding"):
        largest = latent.abs().flatten(1).float().quantile(config["dynamic_thresholding_ratio"], dim=1)
        largest = largest.clamp(min=1, max=config["sample_max_value"]).to(latent.dtype)[:, None, None, None]
        return latent.clamp(-largest, largest) / largest
    if config.get("clip_sample"):
        limit = config.get("clip_sample_range", 1.0)
        return latent.clamp(-limit, limit)
    return latent
