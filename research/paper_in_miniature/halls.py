"""The data: halls as in the demo, for training, for choosing learning rates and for evaluation, from different rooms.

Why nothing is seen twice: a scene follows from a random stream alone, and a stream from a list of numbers whose first
one is the seed. The tiny base, VAE and UNet, was trained on streams that begin with 0, and measured on streams that
begin with 1 (``research/tiny_stable_diffusion/scenes.py``); fine-tuning and evaluation have seeds of their
own. ``check_disjoint`` holds this, and a test compares the streams themselves and the rendered images.
"""

from pathlib import Path

from datamodules import DatasetSource, GeometryDataModule
from geometry.errors import InputError
from research.paper_in_miniature.settings import DataSettings
from research.paper_in_miniature.stages import Stages
from synthetic_scenes import SyntheticDataModule

SEEDS_OF_THE_BASE = (0, 1)
EVALUATION_BATCH = 50
NAME = "halls"


def check_disjoint(data: DataSettings) -> None:
    """Check that no scene can be in two of: training of the base, its measurement, fine-tuning, evaluation.

    Args:
        data: which halls.

    Raises:
        InputError: two of them share a seed.
    """
    seeds = [*SEEDS_OF_THE_BASE, data.training_seed, data.evaluation_seed]
    if len(set(seeds)) < len(seeds):
        raise InputError(
            f"training_seed {data.training_seed} and evaluation_seed {data.evaluation_seed} must differ from each "
            f"other and from the seeds of the tiny base, {SEEDS_OF_THE_BASE}, or scenes would be seen twice."
        )


class Halls:
    """The data modules of the miniature, rendered once into a folder.

    Args:
        folder: where the shards are kept.
        data: which halls.
        stages: keeps two processes from rendering at the same time.

    Raises:
        InputError: evaluation and training share scenes.
    """

    def __init__(self, folder: Path, data: DataSettings, stages: Stages) -> None:
        check_disjoint(data)
        self._folder, self._data, self._stages = str(folder), data, stages

    def training(self, seed: int, batch_size: int) -> SyntheticDataModule:
        """Return the training data; the order and the flips follow from the seed, whatever is trained on them.

        Args:
            seed: seed of the order.
            batch_size: images per step.
        """
        return self._rendered(self._data.training_rooms, self._data.training_seed, seed, batch_size)

    def selection(self) -> GeometryDataModule:
        """Return halls from the training seed that are never trained on, to choose learning rates on."""
        rendered = self.training(seed=0, batch_size=1)
        return _validation(rendered.folders["rooms"], "val")

    def evaluation(self, number: int | None = None) -> GeometryDataModule:
        """Return the halls that everything is judged on.

        Args:
            number: how many of them, spread over all; None takes all.
        """
        rendered = self._rendered(self._data.evaluation_rooms, self._data.evaluation_seed, 0, 1)
        return _validation(rendered.folders["rooms"], "train", number)

    def _rendered(self, rooms: int, data_seed: int, seed: int, batch_size: int) -> SyntheticDataModule:
        module = SyntheticDataModule(
            self._folder,
            rooms,
            data_seed=data_seed,
            modalities=["depth", "normals"],
            batch_size=batch_size,
            num_workers=0,
            seed=seed,
        )

        def render(done: Path) -> None:
            module.prepare_data()
            done.touch()

        self._stages.file(f"rendered halls {rooms} {data_seed}", {}, ".done", render)
        return module


def _validation(folder: Path, split: str, number: int | None = None) -> GeometryDataModule:
    return GeometryDataModule(
        datasets=[],
        val_datasets=[DatasetSource(str(folder), split=split, name=NAME)],
        val_batch_size=EVALUATION_BATCH,
        max_val_samples=number,
        modalities=["depth", "normals"],
        num_workers=0,
    )
