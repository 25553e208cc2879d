"""The estimator that the paper starts from: trained to denoise latents of the truth, sampled in several steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geometry.batch import GeometryBatch
from geometry.errors import InputError
from geometry.masked import masked_mean
from lightning_modules.estimator import Estimator
from lightning_modules.networks.noise import draw_noise, seed_from
from lightning_modules.networks.parameterization import add_noise, answer_to_learn
from lightning_modules.networks.sampling import Sampling, sample_latent
from lightning_modules.networks.stable_diffusion import StableDiffusion
from lightning_modules.tasks import Task

_DEFAULT_SAMPLING = Sampling()


class DiffusionEstimator(Estimator):
    """Depth or normals by denoising, as in Marigold: the baseline, and a start for single-step fine-tuning.

    The frozen VAE encodes the truth as a picture. Training adds noise of a random timestep to its latent and asks the
    network, which also sees the latent of the image, for what the scheduler's prediction type says. Predictions start
    from noise and take the steps of DDIM. The noise setting of the network plays no part here.

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

    network: StableDiffusion

    def __init__(
        self,
        network: StableDiffusion,
        task: Task,
        sampling: Sampling = _DEFAULT_SAMPLING,
        noise_strength: float = 0.9,
        anneal_noise: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(network, task, **options)
        if network.noise == "none":
            raise InputError("a diffusion estimator denoises: its network must not be set to noise: none.")
        if not 0 <= noise_strength <= 1:
            raise InputError(f"the model needs 0 <= noise_strength <= 1, got {noise_strength}.")
        sampling.make_scheduler(network)
        self.sampling = sampling
        self.noise_strength = noise_strength
        self.anneal_noise = anneal_noise

    @torch.no_grad()
    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the prediction, without gradient.

        Args:
            image: (B,3,H,W) in [-1, 1]; height and width are multiples of the VAE's factor.
            seeds: one seed per image for the noise; None is 0 for all.

        Returns:
            (B,C,H,W) float32, as the task defines it.
        """
        image_latent = _at_least_float32(self.network.encode(image))
        seeds = [0] * len(image) if seeds is None else seeds
        members = []
        for number in range(self.sampling.ensemble_size):
            noise = draw_noise(self.sampling.noise, image_latent, _seeds_of_member(number, seeds))
            latent = sample_latent(self.network, image_latent, noise, self.sampling)
            members.append(self.task.predict(self.network.decode(latent)))
        return members[0] if len(members) == 1 else self.task.ensemble(torch.stack(members))

    def training_loss(self, batch: GeometryBatch, seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean squared error of the network's answers, and the share of the latent that counts.

        A latent pixel counts if all the pixels under it are known.

        Args:
            batch: images of one data set.
            seeds: one seed per image for timestep and noise.
        """
        truth, known = self.task.target_image(batch)
        image_latent = _at_least_float32(self.network.encode(batch.image))
        clean = _at_least_float32(self.network.encode(truth.to(batch.image.dtype)))
        known = self.network.known_latents(known)

        config = self.network.scheduler.config
        num_timesteps = config["num_train_timesteps"]
        timesteps = [seed_from(seed, "timestep") % num_timesteps for seed in seeds]
        strengths = [self.noise_strength * (t / num_timesteps if self.anneal_noise else 1) for t in timesteps]
        noise = draw_noise("pyramid", clean, seeds, strengths)
        alphas = self.network.scheduler.alphas_cumprod[timesteps].to(clean, non_blocking=True)

        latent = torch.cat([image_latent, add_noise(clean, noise, alphas)], dim=1)
        answer = self.network.answer(latent, torch.tensor(timesteps).to(clean.device, non_blocking=True))
        expected = answer_to_learn(clean, noise, alphas, config["prediction_type"])
        error = (answer.to(expected.dtype) - expected).square().mean(dim=1, keepdim=True)
        return masked_mean(error, known, "pixel"), {"known_latent_share": known.float().mean()}


def _at_least_float32(latent: Tensor) -> Tensor:
    """Latents come out of autocast in half precision, which is too coarse for what is left after many steps."""
    return latent.to(torch.promote_types(latent.dtype, torch.float32))


def _seeds_of_member(number: int, seeds: Sequence[int]) -> Sequence[int]:
    """The first member has the image's own seeds, so that it is what a prediction without an ensemble would be."""
    return seeds if number == 0 else [seed_from(seed, "member", number) for seed in seeds]
