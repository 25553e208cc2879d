"""A data module that makes its own data, so that the first run needs no download."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from datamodules.geometry_datamodule import DatasetSource, GeometryDataModule
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.shards.manifest import FILE_NAME
from datamodules.sources.hypersim import DEFAULT_MODALITIES, Hypersim
from datamodules.sources.protocol import RawDataset
from datamodules.sources.virtual_kitti import VirtualKitti
from geometry.errors import InputError
from geometry.files.locks import sole_use
from geometry.files.paths import given_path
from synthetic_scenes import SyntheticHypersim, SyntheticVirtualKitti

_ROOM_SIZE = (64, 96)
_STREET_SIZE = (64, 224)
_WEIGHTS = {"rooms": 9.0, "streets": 1.0}


class SyntheticDataModule(GeometryDataModule):
    """Rooms, and streets if asked, rendered on the first run and prepared like Hypersim and Virtual KITTI 2.

    The whole way is that of real data: raw frames in the data sets' own layouts, preparation to shards, streaming.

    Args:
        cache: Folder that keeps the shards for later runs. Other rooms, streets or another data_seed get their own
            place in it.
        rooms: Number of room images (64x96), of which a tenth, from other rooms, is for validation. They show long
            rooms taken with a flash: near is bright, which a small model can learn in minutes.
        streets: Number of street images (64x224), of which a fifth, from other streets, is for validation.
            With streets, one batch in ten is theirs.
        data_seed: Seed of the scenes.
        batch_size: Images per device and step (before gradient accumulation).
        val_batch_size: Images per device and validation step.
        modalities: Modalities to load, as the task needs them. What streets do not have needs streets: 0.
        horizontal_flip: Probability that a training image is mirrored, with its targets.
        max_val_samples: Validate on this many images of rooms and of streets, at even distances. By default on all.
        num_workers: Processes per device that read and decode training data; 0 uses the training process itself.
        seed: Seed of order and flips.
    """

    def __init__(
        self,
        cache: str = "data/synthetic",
        rooms: int = 600,
        streets: int = 0,
        data_seed: int = 0,
        batch_size: int = 8,
        val_batch_size: int = 8,
        modalities: list[str] | None = None,
        horizontal_flip: float = 0.5,
        max_val_samples: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        if rooms < 20 or streets < 0:
            raise InputError(f"data.rooms must be at least 20 and data.streets at least 0, not {rooms} and {streets}.")
        further = tuple(name for name in modalities or () if name not in DEFAULT_MODALITIES)
        if streets and further:
            raise InputError(f"the streets of data.streets have no {further[0]}; set data.streets to 0.")
        place = given_path(cache, "data.cache")
        self.contents = (*DEFAULT_MODALITIES, *further)
        name = "-".join(["rooms", *further, _text(_ROOM_SIZE), str(rooms), f"seed{data_seed}"])
        self.folders = {"rooms": place / name}
        if streets:
            self.folders["streets"] = place / f"streets-{_text(_STREET_SIZE)}-{streets}-seed{data_seed}"
        self.num_frames, self.data_seed = {"rooms": rooms, "streets": streets}, data_seed
        super().__init__(
            datasets=[DatasetSource(str(folder), _WEIGHTS[kind]) for kind, folder in self.folders.items()],
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            modalities=modalities,
            horizontal_flip=horizontal_flip,
            max_val_samples=max_val_samples,
            num_workers=num_workers,
            seed=seed,
        )

    @staticmethod
    def sizes_with_weights(options: Mapping[str, Any]) -> list[tuple[tuple[int, int], float]]:
        """Return (height, width) of rooms and, where there are any, streets, each with its weight.

        Args:
            options: arguments of the class.
        """
        sizes = {"rooms": _ROOM_SIZE} | ({"streets": _STREET_SIZE} if options.get("streets") else {})
        return [(size, _WEIGHTS[kind]) for kind, size in sizes.items()]

    def prepare_data(self) -> None:
        """Render and prepare what the cache does not hold yet."""
        for kind, folder in self.folders.items():
            if not (folder / FILE_NAME).exists():
                with sole_use(folder.parent, f".{folder.name}.lock", is_patient=True):
                    if not (folder / FILE_NAME).exists():  # another process may have made it in the meantime
                        rank_zero_info(f"Making {self.num_frames[kind]} {kind} in {folder}, once.")
                        self._make(kind, folder)

    def _make(self, kind: str, folder: Path) -> None:
        """Render and prepare one data set beside its place, then move it there."""
        for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        workers = max(1, min(os.cpu_count() or 1, 8))
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            raw, shards = Path(scratch) / "raw", Path(scratch) / "shards"
            scenes, data_set = self._scenes(kind, raw)
            scenes.write(raw, self.num_frames[kind], workers)
            # Of format 1, so that the demos' figures stay what they were, to the bit.
            options = ShardOptions(samples_per_shard=32, shard_format=1)
            prepare_dataset(data_set, shards, options, workers, report=rank_zero_info)
            shutil.rmtree(folder, ignore_errors=True)
            shards.rename(folder)

    def _scenes(self, kind: str, raw: Path) -> tuple[SyntheticHypersim | SyntheticVirtualKitti, RawDataset]:
        """Return what is rendered, and the data set that it becomes in its raw folder."""
        if kind == "rooms":
            # Larger than needed, so that preparation resizes as it does with the real frames.
            size = (_ROOM_SIZE[0] * 3 // 2, _ROOM_SIZE[1] * 3 // 2)
            rooms = SyntheticHypersim(size=size, frames_per_scene=1, style="halls", seed=self.data_seed)
            return rooms, Hypersim(raw, _ROOM_SIZE, modalities=self.contents, name="rooms")
        height, width = _STREET_SIZE
        streets = SyntheticVirtualKitti(size=(height + 8, width + 16), seed=self.data_seed)
        return streets, VirtualKitti(raw, _STREET_SIZE, name="streets")


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
