"""The estimator of the paper: one step at the last timestep, trained end to end in pixel space."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geometry.batch import GeometryBatch
from lightning_modules.estimator import Estimator
from lightning_modules.losses.auxiliary import LatentConsistency
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.tasks import Task


class SingleStepEstimator(Estimator):
    """Depth or normals in a single step of a diffusion network, fine-tuned end to end on the task.

    The image goes through the frozen VAE encoder, the trained backbone at its one timestep and the frozen VAE
    decoder; the loss is taken in pixel space, and its gradient flows through the decoder. Where all losses of the task
    have weight 0, the term between latents alone trains, and the decoder's graph is not kept.

    Args:
        network: Network that is trained.
        task: What the network predicts: depth, normals or another task.
        latent_consistency: Term that keeps predicted latents close to those of the truth; none by default.
        **options: What every estimator takes.

    Source:
        Martin Garcia et al., "Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think", WACV 2025.
    """

    def __init__(
        self,
        network: LatentNetwork,
        task: Task,
        latent_consistency: LatentConsistency | None = None,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(network, task, **options)
        self.latent_consistency = latent_consistency

    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the prediction.

        Args:
            image: (B,3,H,W) in [-1, 1]; height and width are multiples of the network's size_multiple.
            seeds: one seed per image for the latent noise; unused with the default, zeros.

        Returns:
            (B,C,H,W) float32, as the task defines it.
        """
        return self.task.predict(self.network(image, seeds))

    def training_loss(self, batch: GeometryBatch, seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the task's loss of the prediction, with the term between latents if there is one.

        Args:
            batch: images of one data set.
            seeds: one seed per image for the latent noise.
        """
        latent = self.network.predict_latent(batch.image, seeds)
        counts = self.latent_consistency is None or any(loss.weight_at(self.global_step) for loss in self.task.losses)
        with torch.set_grad_enabled(counts and torch.is_grad_enabled()):
            prediction = self.task.predict(self.network.decode(latent))
        loss, extras = self.task.training_loss(prediction, batch, self.global_step)
        if self.latent_consistency is None:
            return loss, extras
        image, known = self.task.target_image(batch)
        target = self.network.encode(image.to(batch.image.dtype))
        with torch.autocast(latent.device.type, enabled=False):
            term = self.latent_consistency(latent, target, self.network.known_latents(known)).to(loss.dtype)
        return loss + self.latent_consistency.weight * term, {**extras, self.latent_consistency.name: term.detach()}
