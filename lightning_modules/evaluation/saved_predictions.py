"""Predictions that were saved, in place of a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, cast

import numpy as np
import torch
from torch import Tensor, nn

from geometry.batch import GeometryBatch
from geometry.errors import InputError
from geometry.files.npy_arrays import read_npy_file
from geometry.files.paths import given_path
from lightning_modules.estimator import Estimator
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.tasks import Task
from lightning_modules.uncertainty.spread import Uncertainty


class SavedPredictions(Estimator):
    """Scores predictions that were saved before, or that another method made.

    A prediction is an array ``FOLDER/<data set>/<key>.npy`` of numbers: (H,W) or (1,H,W) for depth up to scale and
    shift, (3,H,W) for normals in the frame x right, y up, z toward the viewer, at any size. The key of a sample is its
    image's path in the data set without the suffix, with every / replaced by two underscores.

    Args:
        folder: Folder of the predictions, such as runs/NAME/test/predictions.
        task: What was predicted: depth or normals.
    """

    def __init__(self, folder: str, task: Task) -> None:
        super().__init__(cast(LatentNetwork, nn.Identity()), task)
        self.folder = given_path(folder, "the folder of saved predictions")
        if not self.folder.is_dir():
            raise InputError(f"model.folder {folder} is not a folder; give the one that holds the saved predictions.")

    def setup(self, stage: str) -> None:
        """Check that predictions are used for testing alone.

        Args:
            stage: must be "test".

        Raises:
            InputError: it is another stage.
        """
        if stage != "test":
            raise InputError("SavedPredictions cannot be trained; they are for onestep test.")

    def measure_spread_by(self, uncertainty: Uncertainty | None) -> None:
        """Refuse to measure a spread.

        Args:
            uncertainty: must be None.

        Raises:
            InputError: it is not.
        """
        if uncertainty is not None:
            raise InputError("evaluation.uncertainty needs a model that predicts again, and SavedPredictions cannot.")

    def fingerprint(self) -> list[tuple[str, int, int]]:
        """Return name, size and time of every prediction, so that scores of other predictions are not reused."""
        stats = ((path, path.stat()) for path in sorted(self.folder.rglob("*.npy")))
        return [(path.relative_to(self.folder).as_posix(), stat.st_size, stat.st_mtime_ns) for path, stat in stats]

    def test_step(self, batch: GeometryBatch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return the saved predictions of a batch.

        Args:
            batch: images of one data set.
            batch_idx: number of the batch.
            dataloader_idx: number of the data set.

        Raises:
            InputError: a prediction is missing or cannot be read.
        """
        self.task.check_has_truth(batch)
        predictions = [self._read(self.folder / batch.dataset.name / f"{key}.npy") for key in batch.key]
        return {"prediction": torch.stack(predictions).to(batch.image.device)}

    def forward(self, image: Tensor, seeds: Sequence[int] | None = None) -> NoReturn:
        """Saved predictions cannot predict anything new."""
        raise InputError("SavedPredictions hold no model to predict with.")

    def training_loss(self, batch: GeometryBatch, seeds: Sequence[int]) -> NoReturn:
        """Saved predictions cannot be trained."""
        raise InputError("SavedPredictions hold no model to train.")

    def _read(self, path: Path) -> Tensor:
        channels = self.task.modality.num_channels
        try:
            values = read_npy_file(path)
        except FileNotFoundError as error:
            raise InputError(f"the prediction {path} is missing.") from error
        values = values[None] if values.ndim == 2 else values
        if values.ndim != 3 or len(values) != channels or values.dtype.kind not in "uif" or not values.size:
            raise InputError(
                f"the prediction {path} is {values.dtype} {values.shape}, not {channels} x height x width."
            )
        return torch.from_numpy(values.astype(np.float32))
