"""Flow matching (rectified flow): straight ways from noise to clean latents, and denoisers that predict velocities."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geometry.errors import InputError
from lightning_modules.networks.noise import seed_from
from lightning_modules.networks.noise_process import MANY_TOKENS, NoiseProcess, Sampler, Spacing, per_image

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

Shift = Callable[[int, int, Mapping[str, Any]], float]


class FlowMatching(NoiseProcess):
    """The noise process of FLUX, Qwen-Image and Stable Diffusion 3: noisy = (1 - sigma) clean + sigma noise.

    Convention:
        sigma is timestep / num_timesteps, in (0, 1]; the velocity is noise - clean, so that
        clean = noisy - sigma velocity. A denoiser whose timestep or sign differs says so in its ``model_output``.

    Args:
        scheduler: diffusers' scheduler of flow matching; its shift says how dense training's timesteps lie. One that
            shifts by the size of the image (use_dynamic_shifting) draws training's timesteps evenly, as diffusers'
            training scripts do, and shifts those of sampling.
        shift: How far such a schedule is shifted (mu), from the number of an image's tokens, the number of steps and
            the scheduler's config.

    Raises:
        InputError: The scheduler counts noise downward or adds some, or shifts by the size of the image although
            nothing says how far.
    """

    scheduler: "FlowMatchEulerDiscreteScheduler"

    def __init__(self, scheduler: "FlowMatchEulerDiscreteScheduler", shift: Shift | None = None) -> None:
        super().__init__(scheduler)
        refused = ["invert_sigmas", "stochastic_sampling", *([] if shift else ["use_dynamic_shifting"])]
        for name in refused:
            if scheduler.config[name]:
                raise InputError(f"the scheduler says {name}: true, which is not done here. Set it to false.")
        self._shift = shift
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

    def make_sampler(self, num_steps: int, spacing: Spacing, num_tokens: int = MANY_TOKENS) -> Sampler:
        """Return Euler's steps from pure noise: see ``NoiseProcess``."""
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

        if spacing != "trailing":
            raise InputError(f"flow matching begins at pure noise: sampling.spacing must be trailing, not {spacing}.")
        if num_steps > self.num_timesteps:
            raise InputError(
                f"sampling.num_steps {num_steps} is too large: the noise schedule has {self.num_timesteps} timesteps."
            )
        config: dict[str, Any] = dict(self.scheduler.config)
        if num_steps == 1:
            config["shift_terminal"] = None  # the first step is at pure noise; it cannot be near the image as well
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        mu = self._shift(num_tokens, num_steps, config) if self._shift and config["use_dynamic_shifting"] else None
        scheduler.set_timesteps(sigmas=[1 - number / num_steps for number in range(num_steps)], mu=mu)
        return Sampler(self, scheduler)
