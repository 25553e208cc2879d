"""How an estimator is asked for predictions: of images, of a batch, of a test, several of the same images."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from lightning.pytorch import LightningModule
from torch import Tensor

from geometry.batch import GeometryBatch
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.noise import seed_from, seeds_of_member
from lightning_modules.networks.sizes import pad_to_multiple
from lightning_modules.tasks import Task
from lightning_modules.uncertainty.spread import Uncertainty


class Predicting(LightningModule, ABC):
    """The part of an estimator that predicts.

    Attributes:
        network: network that predicts.
        task: what it predicts.
        uncertainty: what ``test_step`` measures the spread of predictions by; None for not at all.
    """

    network: LatentNetwork
    task: Task
    uncertainty: Uncertainty | None = None

    @abstractmethod
    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> Tensor:
        """Return the prediction (B,C,H,W) float32 for an image (B,3,H,W) in [-1, 1]."""

    def predict_batch(self, image: Tensor, batch: GeometryBatch, seeds: Sequence[int]) -> Tensor:
        """Return the prediction (B,C,H,W) float32 for the images of a batch, whose data set may count.

        Args:
            image: (B,3,H,W) in [-1, 1], of a size that fits the network.
            batch: what the images come from.
            seeds: one seed per image.
        """
        return self(image, seeds)

    def measure_spread_by(self, uncertainty: Uncertainty | None) -> None:
        """Let ``test_step`` return the spread of predictions, too.

        Args:
            uncertainty: what it is measured by; None for not at all.

        Raises:
            InputError: this model has no such uncertainty.
        """
        if uncertainty is not None:
            uncertainty.check(self.draws_noise)
        self.uncertainty = uncertainty

    @property
    def draws_noise(self) -> bool:
        """Whether predictions depend on the seeds; by default, they do not."""
        return False

    def predict_member(
        self, image: Tensor, seeds: Sequence[int], number: int, batch: GeometryBatch | None = None
    ) -> Tensor:
        """Return one of several predictions (B,C,H,W) of the same images, from noise of its own.

        Args:
            image: (B,3,H,W) in [-1, 1], of a size that fits the network.
            seeds: one seed per image, those of the first member.
            number: of the member, from 0.
            batch: what the images come from, where it is known.
        """
        seeds = seeds_of_member(number, seeds)
        return self(image, seeds) if batch is None else self.predict_batch(image, batch, seeds)

    def test_step(self, batch: GeometryBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return the prediction at the size of the images, which may be any; the callback ``Evaluation`` scores it.

        With ``uncertainty``, its ``spread`` stands beside it.

        Args:
            batch: images of one data set.
            batch_idx: number of the batch.
            dataloader_idx: number of the data set.
        """
        self.task.check_has_truth(batch)
        height, width = batch.image.shape[-2:]
        factor, seeds = self.network.size_multiple, [seed_from(key) for key in batch.key]
        image = pad_to_multiple(batch.image, factor)

        def predict(image: Tensor, member: int | None = None) -> Tensor:
            if member is None:
                return self.predict_batch(image, batch, seeds)
            return self.predict_member(image, seeds, member, batch)

        found = {"prediction": predict(image)}
        if self.uncertainty is not None:
            found["spread"] = self.uncertainty.spread(found["prediction"], image, predict, self.task.modality, factor)
        return {name: values[..., :height, :width] for name, values in found.items()}
