"""The data module: mixes prepared data sets for training and validates on each; ``streaming/pipelines.py`` has how."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from datamodules.shards.manifest import read_dataset
from datamodules.shards.transfer import Transfer
from datamodules.streaming.augmentation import NO_AUGMENTATION, Augmentation
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.loading import Workers
from datamodules.streaming.order import STREAM_COUNTS, count_streams
from datamodules.streaming.packing import PackedBatch
from datamodules.streaming.train_loader import TrainLoader
from datamodules.streaming.train_order import OpenSource, TrainOrder
from datamodules.streaming.val_loader import ValLoader
from datamodules.untrusted.text import shorten
from geometry.batch import DatasetInfo, GeometryBatch
from geometry.errors import InputError
from geometry.modalities import DEFAULT

_WEEK_S = 7 * 24 * 3600
# Weights are added up and divided: their sum must be a number.
_MAX_WEIGHT = 1e9
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("batch_size", "val_batch_size"), (1, 16_384)),
    **dict.fromkeys(("num_workers", "val_num_workers"), (0, 1024)),
    **dict.fromkeys(("max_val_samples", "batches_per_epoch"), (1, 10**12)),
    **{"prefetch_factor": (1, 1024), "shuffle_buffer": (1, 10**6), "retries": (0, 10**6)},
    **{"max_bad_samples": (0, 10**9), "horizontal_flip": (0, 1)},
    **{"timeout_s": (0.001, _WEEK_S), "loader_timeout_s": (0, _WEEK_S)},
}


@dataclass(frozen=True)
class DatasetSource:
    """A prepared data set and the part it plays.

    Args:
        path: Folder of the data set (the ``--output`` of ``onestep prepare``), or its URL.
        weight: How often batches are drawn from it, relative to the other data sets; 9 and 1 give nine to one.
        name: Name in logs and batches. By default the name that the data set was prepared under.
        split: Split to read. By default "train" for training and "val" for validation.
    """

    path: str
    weight: float = 1.0
    name: str | None = None
    split: str | None = None

    @classmethod
    def of(cls, given: "DatasetSource | Mapping[str, Any]") -> "DatasetSource":
        """Return a data set that may be given by its arguments alone, as in a configuration.

        Raises:
            InputError: it is given in another way.
        """
        try:
            return given if isinstance(given, DatasetSource) else cls(**given)
        except TypeError as error:
            keys = "a path and, if need be, weight, name and split"
            raise InputError(f"data.datasets holds {shorten(given)}; give each {keys}.") from error


class GeometryDataModule(LightningDataModule):
    """Batches of images with what the task needs of them, streamed from prepared data sets.

    Every batch comes from one data set, drawn at random according to the weights. The order of training depends on the
    seed alone: not on the number of loader processes, and a checkpoint resumes it exactly.

    Args:
        datasets: Data sets to train on, in Python also as mappings with the keys of a configuration.
        val_datasets: Data sets to validate on. By default the "val" splits of ``datasets``, where there are any.
        batch_size: Images per device and step (before gradient accumulation).
        val_batch_size: Images per device and validation step. By default ``batch_size``.
        modalities: Modalities to load, as the task needs them; every data set must have them.
        horizontal_flip: Probability that a training image is mirrored, with its targets.
        augmentation: Other random changes of training images, for instance {crop: 0.6, color: 0.2}; by default none.
        max_val_samples: Validate on this many images of every data set, at even distances. By default on all.
        num_workers: Processes per device that read and decode training data; 0 uses the training process itself.
        val_num_workers: Processes per device and data set that read validation data. By default at most 2.
        prefetch_factor: Batches that every loader process prepares ahead.
        seed: Seed of order and flips.
        shuffle_buffer: Training samples of a stream that are held, undecoded, and shuffled among themselves. All
            devices together hold max_streams x this many of each data set, at 0.2 MB each, 0.5 to 1 MB with normals.
        max_streams: Most parts that a data set is read in at a time: one of 1, 2, 4, 6, 12, 24, 48. Keep it while a run
            lasts; it should be a multiple of devices x num_workers, or workers read what others decode.
        batches_per_epoch: Steps that count as one epoch. By default as many as see each sample once on average.
        cache_dir: Folder that keeps verified copies of shards from URLs and commands. By default they are read anew in
            every epoch. It grows to the size of the data sets; copies can be deleted when no run uses them.
        retries: Attempts at reading a remote shard after a failed one, counted anew whenever bytes arrive. Pauses
            grow from 1 to 30 seconds; reading goes on where it stopped.
        timeout_s: Seconds without a byte after which a remote read counts as failed.
        loader_timeout_s: Seconds to wait for a batch from the loader processes before the run ends; 0 waits for ever.
        max_bad_samples: Number of damaged samples that every process skips, each with a warning, before it ends the
            run. A skipped sample is a blank image without valid pixels.
    """

    def __init__(
        self,
        datasets: list[DatasetSource],
        val_datasets: list[DatasetSource] | None = None,
        batch_size: int = 2,
        val_batch_size: int | None = None,
        modalities: list[str] | None = None,
        horizontal_flip: float = 0.5,
        augmentation: Augmentation = NO_AUGMENTATION,
        max_val_samples: int | None = None,
        num_workers: int = 4,
        val_num_workers: int | None = None,
        prefetch_factor: int = 2,
        seed: int = 0,
        shuffle_buffer: int = 32,
        max_streams: int = 48,
        batches_per_epoch: int | None = None,
        cache_dir: str | None = None,
        retries: int = 5,
        timeout_s: float = 60.0,
        loader_timeout_s: float = 1800.0,
        max_bad_samples: int = 10,
    ) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # with more ranks than validation batches
        self.datasets, self.cache_dir = [DatasetSource.of(source) for source in datasets], cache_dir
        self.val_datasets = val_datasets and [DatasetSource.of(source) for source in val_datasets]
        self.batch_size, self.val_batch_size = batch_size, batch_size if val_batch_size is None else val_batch_size
        self.modalities, self.max_val_samples = tuple(modalities or [DEFAULT]), max_val_samples
        self.horizontal_flip, self.augmentation = horizontal_flip, augmentation
        self.num_workers, self.prefetch_factor = num_workers, prefetch_factor
        self.val_num_workers = min(num_workers, 2) if val_num_workers is None else val_num_workers
        self.seed, self.shuffle_buffer, self.max_streams = seed, shuffle_buffer, max_streams
        self.batches_per_epoch, self.max_bad_samples = batches_per_epoch, max_bad_samples
        self.retries, self.timeout_s, self.loader_timeout_s = retries, timeout_s, loader_timeout_s
        self._train, self._val = list[OpenSource](), list[OpenSource]()
        self._train_loader: TrainLoader | None = None
        self._val_loaders: list[ValLoader] | None = None
        self._skipped_tests = set[str]()

    @property
    def val_dataset_infos(self) -> list[DatasetInfo]:
        """The validation data sets, in the order of their loaders. Known after ``setup``."""
        return [DatasetInfo(source.name, source.dataset.manifest.ranges) for source in self._val]

    @property
    def test_dataset_infos(self) -> list[DatasetInfo]:
        """The data sets that ``test`` scores: those of the validation, but for those to skip."""
        return self.val_dataset_infos

    @property
    def missing_tests(self) -> dict[str, str]:
        """Nothing: a data set that is missing ends the run."""
        return {}

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """(height, width) of the images of every data set in use, by name. Known after ``setup``.

        Those to train on come first, the one with the largest weight before the others.
        """
        train = sorted(self._train, key=lambda source: -source.weight)
        return {source.name: source.dataset.manifest.image_size for source in [*train, *self._val]}

    @property
    def train_image_sizes(self) -> set[tuple[int, int]]:
        """(height, width) of the images to train on. Known after ``setup("fit")``."""
        return {source.dataset.manifest.image_size for source in self._train}

    def setup(self, stage: str) -> None:
        """Find the data sets and check that they hold what is asked for.

        Args:
            stage: "fit" looks for training and validation data, "validate" and "test" for the latter alone.

        Raises:
            InputError: an option is out of range, a folder is no data set, a split is missing or empty, two data sets
                share a name, or a modality is asked for and absent.
        """
        self._check_options()
        self._train_loader, self._val_loaders = None, None
        self._train = [self._open(source, "train") for source in self.datasets] if stage == "fit" else []
        candidates = self.datasets if self.val_datasets is None else self.val_datasets
        val = [self._open(source, "val", self.val_datasets is not None) for source in candidates]
        self._val = [source for source in val if source.num_samples]
        for sources in (self._train, self._val):
            for source in sources:
                if [other.name for other in sources].count(source.name) > 1:
                    raise InputError(
                        f"two data sets are named {source.name!r} ({source.dataset.root} is one). "
                        "Give one of them another `name` in data.datasets or data.val_datasets."
                    )

    def train_dataloader(self) -> TrainLoader:
        """Return the training loader, the same one until the next ``setup``."""
        if self._train_loader is None:
            self._train_loader = self._make_train_loader()
        return self._train_loader

    def val_dataloader(self) -> list[ValLoader]:
        """Return one loader per validation data set, in the order of ``val_dataset_infos``."""
        if self._val_loaders is None:
            workers = self._workers(self.val_num_workers)
            self._val_loaders = [
                ValLoader(source, self.val_batch_size, self.max_val_samples, workers) for source in self._val
            ]
        return self._val_loaders

    def test_dataloader(self) -> list[ValLoader]:
        """Return the validation loaders of the data sets that are not to be skipped."""
        loaders = zip(self._val, self.val_dataloader(), strict=True)
        return [loader for source, loader in loaders if source.name not in self._skipped_tests]

    def skip_tests(self, names: Collection[str]) -> None:
        """Deliver no test loader for some data sets.

        Args:
            names: their names.
        """
        self._skipped_tests = set(names)

    def test_problems(self, name: str) -> dict[str, str]:
        """Return nothing: a bad sample is a blank image, in which nothing is scored.

        Args:
            name: a validation data set.
        """
        return {}

    def on_after_batch_transfer(self, batch: GeometryBatch | PackedBatch, dataloader_idx: int) -> GeometryBatch:
        """Return a batch as the model sees it. Under a trainer, batches travel packed and are expanded on the device.

        Args:
            batch: a batch on the device.
            dataloader_idx: number of the loader.
        """
        return batch.expand() if isinstance(batch, PackedBatch) else batch

    def describe_test(self, name: str) -> dict[str, object]:
        """Return what the scores of a data set depend on, beside the model.

        Args:
            name: a validation data set.
        """
        source = next(source for source in self._val if source.name == name)
        return {"shards": [shard.sha256 for shard in source.shards], "max_samples": self.max_val_samples}

    def on_exception(self, exception: BaseException) -> None:
        """End the loader processes when the run fails or is told to stop."""
        self.teardown("")

    def teardown(self, stage: str) -> None:
        """Let go of the loaders and end their processes."""
        for loader in [self._train_loader, *(self._val_loaders or [])]:
            if loader is not None:
                loader.close()
        self._train_loader, self._val_loaders = None, None

    def _make_train_loader(self) -> TrainLoader:
        if getattr(self.trainer, "overfit_batches", False):
            raise InputError("trainer.overfit_batches is not supported. Prepare a small data set and train on that.")
        num_streams = count_streams([len(source.shards) for source in self._train], self.max_streams)
        workers = self._workers(self.num_workers)
        readers = workers.world_size * max(workers.num_workers, 1)
        if num_streams % readers:
            rank_zero_info(
                f"Data: {num_streams} stream{'s' * (num_streams > 1)} for {readers} reading processes, several each; "
                "a number of devices x num_workers that divides the number of streams would save reading."
            )
        changes = self.horizontal_flip, self.augmentation
        order = TrainOrder(self.seed, tuple(self._train), num_streams, self.shuffle_buffer, *changes)
        per_step = workers.world_size * self.batch_size
        per_epoch = max(1, sum(source.num_samples for source in self._train) // per_step)
        return TrainLoader(order, self.batch_size, self.batches_per_epoch or per_epoch, workers)

    def _workers(self, num_workers: int) -> Workers:
        trainer = self.trainer
        return Workers(
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            num_workers=num_workers,
            prefetch_factor=self.prefetch_factor,
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            timeout_s=self.loader_timeout_s,
            max_bad_samples=self.max_bad_samples,
            packed=trainer is not None,
        )

    def _open(self, source: DatasetSource, default_split: str, required: bool = True) -> OpenSource:
        dataset = read_dataset(source.path, Transfer(self.retries, self.timeout_s, backoff_s=1.0), self.cache_dir)
        manifest = dataset.manifest
        split = default_split if source.split is None or not required else source.split
        if required and not manifest.num_samples(split):
            there = ", ".join(name for name in manifest.splits if manifest.num_samples(name)) or "none"
            raise InputError(
                f"data set {dataset.root} has no samples in the split {split!r}; splits with samples: {there}."
            )
        for name in self.modalities:
            if name not in manifest.entries:
                raise InputError(
                    f"data set {manifest.name!r} ({dataset.root}) has no {name}, which the task needs. "
                    f"It holds {', '.join(manifest.modalities)}. Prepare it again with {name}, or leave it out."
                )
        if not (source.weight > 0 and source.weight <= _MAX_WEIGHT):
            raise InputError(
                f"the weight of data set {source.path} must be a positive number up to 1e9, not {source.weight}."
            )
        assembler = BatchAssembler(source.name or manifest.name, manifest, self.modalities)
        return OpenSource(dataset, assembler, source.weight, split)

    def _check_options(self) -> None:
        if not self.datasets and not self.val_datasets:
            raise InputError("data.datasets is empty. Name at least one prepared data set.")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(f"data.{name} must be from {least} to {most}, not {value}.")
        if self.max_streams not in STREAM_COUNTS:
            raise InputError(f"data.max_streams must be one of {STREAM_COUNTS}, not {self.max_streams}.")
