"""What stands between clean latents and noise, as training, single steps and sampling see it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torch import Tensor

Spacing = Literal["leading", "trailing"]

# Tokens of a square image of 1024 pixels, where nobody says how large an image is.
MANY_TOKENS = 4096


class NoiseProcess(ABC):
    """How noise is added to clean latents, and what a denoiser's output says of the clean ones.

    Convention:
        A timestep is the number that diffusers' models are given for it: 0 to 999 in diffusion, 0 to 1000 in flow
        matching; the larger, the noisier.

    Args:
        scheduler: diffusers' scheduler, as the base's config describes it.
    """

    def __init__(self, scheduler: Any) -> None:  # noqa: ANN401 - diffusers' schedulers share no useful type
        self.scheduler = scheduler

    @property
    def num_timesteps(self) -> int:
        """Number of timesteps in training."""
        return self.scheduler.config["num_train_timesteps"]

    @property
    @abstractmethod
    def last_timestep(self) -> float:
        """The timestep of pure noise, at which a single step is taken; an int where timesteps are whole numbers."""

    @abstractmethod
    def draw_timesteps(self, seeds: Sequence[int]) -> Tensor:
        """Return a timestep per seed, (B,) on the CPU."""

    @abstractmethod
    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return noisy latents.

        Args:
            clean: (B,C,h,w), clean latents.
            noise: (B,C,h,w), noise of unit variance.
            timesteps: (B,), on the CPU.
        """

    @abstractmethod
    def training_target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what a denoiser learns to say of ``add_noise(clean, noise, timesteps)``.

        Args:
            clean: (B,C,h,w), clean latents.
            noise: (B,C,h,w), noise of unit variance.
            timesteps: (B,), on the CPU.
        """

    @abstractmethod
    def predict_x0(self, model_output: Tensor, sample: Tensor, timestep: float) -> Tensor:
        """Return the clean latent that a denoiser's output stands for.

        Args:
            model_output: (B,C,h,w), the denoiser's output.
            sample: (B,C,h,w), what it was asked to denoise.
            timestep: one for all images; not a tensor, for which the host might have to wait.
        """

    @abstractmethod
    def make_sampler(self, num_steps: int, spacing: Spacing, num_tokens: int = MANY_TOKENS) -> "Sampler":
        """Return the steps from noise to a clean latent.

        Args:
            num_steps: number of steps.
            spacing: which timesteps they are.
            num_tokens: how many tokens the image is to the denoiser, for schedules that are shifted by its size.

        Raises:
            InputError: the schedule has no such steps.
        """


class Sampler:
    """The steps from noise to a clean latent, once.

    Args:
        process: the noise process.
        scheduler: diffusers' scheduler, with its timesteps set.
    """

    def __init__(self, process: NoiseProcess, scheduler: Any) -> None:  # noqa: ANN401
        self.process = process
        self.scheduler = scheduler

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the timesteps, scalars on the CPU."""
        return iter(self.scheduler.timesteps)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.scheduler.timesteps)

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> Tensor:
        """Return the latent of the next timestep, (B,C,h,w).

        Args:
            model_output: (B,C,h,w), the denoiser's output.
            timestep: the timestep of ``sample``.
            sample: (B,C,h,w), what it was asked to denoise.
        """
        return self.scheduler.step(model_output, timestep, sample, return_dict=False)[0]

    def predict_x0(self, model_output: Tensor, sample: Tensor, timestep: float) -> Tensor:
        """Return the clean latent that a denoiser's output stands for, by default that of the noise process."""
        return self.process.predict_x0(model_output, sample, timestep)


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Return one number per image, (B,) on the CPU, as (B,1,1,1) beside latents, without waiting for the device."""
    return values.to(like, non_blocking=True)[:, None, None, None]
