"""The estimator of the paper: one step at the last timestep, trained end to end in pixel space."""

from collections.abc import Sequence

from torch import Tensor

from geometry.batch import GeometryBatch
from lightning_modules.estimator import Estimator


class SingleStepEstimator(Estimator):
    """Depth or normals in a single step of a diffusion network, fine-tuned end to end on the task.

    The image goes through the frozen VAE encoder, the trained backbone at its one timestep and the frozen VAE
    decoder; the loss is taken in pixel space, and its gradient flows through the decoder.

    Source:
        Martin Garcia et al., "Fine-Tuning Image-Conditional Diffusion Models is Easier than You Think", WACV 2025.
    """

    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the prediction.

        Args:
            image: (B,3,H,W) in [-1, 1]; height and width are multiples of the VAE's factor.
            seeds: one seed per image for the latent noise; unused with the default, zeros.

        Returns:
            (B,C,H,W) float32, as the task defines it.
        """
        return self.task.predict(self.network(image, seeds))

    def training_loss(self, batch: GeometryBatch, seeds: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the task's loss of the prediction.

        Args:
            batch: images of one data set.
            seeds: one seed per image for the latent noise.
        """
        return self.task.training_loss(self(batch["image"], seeds), batch)
