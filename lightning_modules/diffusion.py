"""The estimator that the paper starts from: trained to denoise latents of the truth, sampled in several steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geometry.batch import GeometryBatch
from geometry.errors import InputError
from geometry.masked import masked_mean
from lightning_modules.estimator import Estimator
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.noise import draw_noise, seeds_of_member
from lightning_modules.networks.sampling import Sampling, sample_latent
from lightning_modules.tasks import Task

_DEFAULT_SAMPLING = Sampling()


class DiffusionEstimator(Estimator):
    """Depth or normals by denoising, as in Marigold: the baseline, and a start for single-step fine-tuning.

    The frozen VAE encodes the truth as an image. Training adds noise of a random timestep to its latent and asks the
    network, which also sees the latent of the image, for the training target of its noise process: v, the noise or the
    clean latent in diffusion, the velocity in flow matching. Predictions start from noise and take the steps of DDIM or
    of Euler. The noise setting of the network plays no part here.

    Args:
        network: Network that is trained. It must take a noisy latent, so its noise must not be none.
        task: What the network predicts: depth, normals or another task.
        sampling: How predictions are made, in validation too.
        noise_strength: Strength of the coarse levels of the multi-resolution noise in training, in [0, 1]; 0 is plain
            gaussian noise.
        anneal_noise: Let the coarse levels fade with the timestep, so that nearly clean latents get plain noise.
        **options: What every estimator takes.

    Raises:
        InputError: A setting is out of range, or the network takes no noisy latent.

    Source:
        Ke et al., "Repurposing Diffusion-Based Image Generators for Monocular Depth Estimation" (Marigold), CVPR 2024,
        and its public training code.
    """

    def __init__(
        self,
        network: LatentNetwork,
        task: Task,
        sampling: Sampling = _DEFAULT_SAMPLING,
        noise_strength: float = 0.9,
        anneal_noise: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(network, task, **options)
        if not network.denoiser.denoises:
            raise InputError(
                f"a diffusion estimator denoises, but this {type(network).__name__} sees the image alone, without a "
                "noisy latent: its network must not be set to noise: none."
            )
        if network.switch is not None or len(task.members) > 1:
            raise InputError(
                "a diffusion estimator has a single task and a network without a switch; train several tasks with "
                "lightning_modules.SingleStepEstimator."
            )
        if not 0 <= noise_strength <= 1:
            raise InputError(f"the model needs 0 <= noise_strength <= 1, got {noise_strength}.")
        network.noise_process.make_sampler(sampling.num_steps, sampling.spacing)  # which refuses what cannot be
        self.sampling = sampling
        self.noise_strength = noise_strength
        self.anneal_noise = anneal_noise

    @torch.no_grad()
    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the prediction, without gradient.

        Args:
            image: (B,3,H,W) in [-1, 1]; height and width are multiples of the network's size_multiple.
            seeds: one seed per image for the noise; None is 0 for all.

        Returns:
            (B,C,H,W) float32, as the task defines it.
        """
        image_latent = _at_least_float32(self.network.encode(image))
        seeds = [0] * len(image) if seeds is None else seeds
        members = [self._member(image_latent, number, seeds) for number in range(self.sampling.ensemble_size)]
        return members[0] if len(members) == 1 else self.task.ensemble(torch.stack(members))

    @property
    def draws_noise(self) -> bool:
        """Whether predictions depend on the seeds."""
        return self.sampling.noise != "zeros"

    @torch.no_grad()
    def predict_member(
        self, image: Tensor, seeds: Sequence[int], number: int, batch: GeometryBatch | None = None
    ) -> Tensor:
        """Return a member of an ensemble, as ``forward`` combines them: see ``Estimator``."""
        return self._member(_at_least_float32(self.network.encode(image)), number, seeds)

    def _member(self, image_latent: Tensor, number: int, seeds: Sequence[int]) -> Tensor:
        noise = draw_noise(self.sampling.noise, image_latent, seeds_of_member(number, seeds))
        latent = sample_latent(self.network, image_latent, noise, self.sampling)
        return self.task.predict(self.network.decode(latent))

    def training_loss(self, batch: GeometryBatch, seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error of the network's outputs, and the share of the latent that counts.

        A latent pixel counts if all the pixels under it are known.

        Args:
            batch: images of one data set.
            seeds: one seed per image for timestep and noise.
        """
        truth, known = self.task.target_image(batch)
        image_latent = _at_least_float32(self.network.encode(batch.image))
        clean = _at_least_float32(self.network.encode(truth.to(batch.image.dtype)))
        known = self.network.codec.known_latents(known)

        process = self.network.noise_process
        timesteps = process.draw_timesteps(seeds)
        levels = [timestep / process.num_timesteps for timestep in timesteps.tolist()]
        noise = draw_noise("pyramid", clean, seeds, [self._strength_at(level) for level in levels])
        noisy = process.add_noise(clean, noise, timesteps)
        latents = self.network.denoiser.input_of(image_latent, noisy)
        output = self.network.model_output(latents, timesteps.to(clean.device, non_blocking=True))
        target = process.training_target(clean, noise, timesteps)
        error = (output.to(target.dtype) - target).square().mean(dim=1, keepdim=True)
        return masked_mean(error, known, "pixel"), {"known_latent_share": known.float().mean()}

    def _strength_at(self, level: float) -> float:
        """Return the strength of the coarse levels of noise at a timestep, given as a share of the last."""
        return self.noise_strength * (level if self.anneal_noise else 1)


def _at_least_float32(latent: Tensor) -> Tensor:
    """Latents come out of autocast in half precision, which is too coarse for what is left after many steps."""
    return latent.to(torch.promote_types(latent.dtype, torch.float32))
