"""Flow matching (rectified flow): straight ways from noise to clean latents, and denoisers that predict velocities."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from geometry.errors import InputError
from lightning_modules.networks.noise import seed_from
from lightning_modules.networks.noise_process import NoiseProcess, Sampler, Spacing, per_image

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler


class FlowMatching(NoiseProcess):
    """The noise process of FLUX, Qwen-Image and Stable Diffusion 3: noisy = (1 - sigma) clean + sigma noise.

    Convention:
        sigma is timestep / num_timesteps, in (0, 1]; the velocity is noise - clean, so that
        clean = noisy - sigma velocity. A denoiser whose timestep or sign differs says so in its ``model_output``.

    Args:
        scheduler: diffusers' scheduler of flow matching; its shift says how dense training's timesteps lie.

    Raises:
        InputError: The scheduler shifts timesteps by the size of the image, or counts noise downward.
    """

    scheduler: "FlowMatchEulerDiscreteScheduler"

    def __init__(self, scheduler: "FlowMatchEulerDiscreteScheduler") -> None:
        super().__init__(scheduler)
        for name in ("use_dynamic_shifting", "invert_sigmas", "stochastic_sampling"):
            if scheduler.config[name]:
                raise InputError(f"the scheduler says {name}: true, which is not done here. Set it to false.")
        self._training_timesteps = torch.as_tensor(scheduler.timesteps)

    @property
    def last_timestep(self) -> float:
        """The timestep of pure noise, at which a single step is taken."""
        return float(self.num_timesteps)

    def draw_timesteps(self, seeds: Sequence[int]) -> Tensor:
        """Return a timestep per seed, (B,) float32 on the CPU, as dense as the scheduler's shift has them."""
        return self._training_timesteps[[seed_from(seed, "timestep") % self.num_timesteps for seed in seeds]]

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return noisy latents: see ``NoiseProcess``."""
        sigmas = per_image(timesteps / self.num_timesteps, clean)
        return sigmas * noise + (1 - sigmas) * clean

    def training_target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the velocity, which is the same at all timesteps."""
        return noise - clean

    def predict_x0(self, model_output: Tensor, sample: Tensor, timestep: float) -> Tensor:
        """Return the clean latent of a denoiser's velocity: see ``NoiseProcess``."""
        return sample - (timestep / self.num_timesteps) * model_output

    def make_sampler(self, num_steps: int, spacing: Spacing) -> Sampler:
        """Return Euler's steps from pure noise: see ``NoiseProcess``."""
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        if spacing != "trailing":
            raise InputError(f"flow matching begins at pure noise: sampling.spacing must be trailing, not {spacing}.")
        if num_steps > self.num_timesteps:
            raise InputError(
                f"sampling.num_steps {num_steps} is too large: the noise schedule has {self.num_timesteps} timesteps."
            )
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(sigmas=[1 - number / num_steps for number in range(num_steps)])
        return _EulerSampler(self, scheduler)


class _EulerSampler(Sampler):
    """Euler's steps along the velocity."""

    def predict_x0(self, model_output: Tensor, sample: Tensor, timestep: float) -> Tensor:
        """Return the clean latent that a velocity stands for."""
        return self.process.predict_x0(model_output, sample, timestep)
