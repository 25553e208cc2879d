"""The data module of ``onestep test``: the zero-shot benchmarks under one folder."""

from collections.abc import Collection
from math import inf
from pathlib import Path

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info

from datamodules.benchmarks import import_all
from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.loader import BenchmarkLoader
from datamodules.benchmarks.protocol import Benchmark, benchmarks_of, modalities_with_benchmarks
from datamodules.streaming.loading import Workers
from datamodules.streaming.order import even_subset
from geometry.batch import DatasetInfo
from geometry.errors import InputError, printable
from geometry.files.paths import given_path
from geometry.modalities import DEFAULT


class Benchmarks(LightningDataModule):
    """The zero-shot benchmarks, read from their released archives or from extracted folders, without unpacking.

    For depth: nyuv2, kitti, eth3d, scannet and diode, in the archives of Marigold's authors; ibims, sintel, da_2k and
    kitti_completion in those of their own authors; hypersim_edges, as Marigold's authors prepare it. For normals:
    nyuv2, scannet, ibims and sintel, in the folder dsine_eval of DSINE's authors, or in dsine_eval.zip. For albedo:
    hypersim, as Marigold's authors prepare it.

    Args:
        root: Folder that holds the archives or extracted folders, directly or one folder deeper.
        benchmarks: Names of the benchmarks to score; by default all that are found. One that is named must be there.
        modalities: Modality to score, as the model's task predicts it.
        file_lists: File list by benchmark, in the format of Marigold's: an image and its ground truth per line. By
            default the samples are those that the archive holds.
        longest_side_px: Shrink images to this longest side before they are predicted; 0 keeps their size. By default
            as the protocol says: 756 for eth3d, 640 for diode, else their own size.
        max_samples: Score this many samples of each benchmark, at even distances. By default all.
        num_workers: Processes per device and benchmark that read samples; 0 uses the main process itself.
        color_cast: Give the images of normals the colour cast of the released evaluation of the paper's authors, to
            repeat its figures to the digit.
    """

    def __init__(
        self,
        root: str,
        benchmarks: list[str] | None = None,
        modalities: list[str] | None = None,
        file_lists: dict[str, str] | None = None,
        longest_side_px: int | None = None,
        max_samples: int | None = None,
        num_workers: int = 2,
        color_cast: bool = False,
    ) -> None:
        super().__init__()
        # A rank may get no sample when there are more ranks than samples.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.root, self.benchmarks = given_path(root, "data.root"), benchmarks
        self.modality, *others = modalities or [DEFAULT]
        if others:
            raise InputError(
                f"benchmarks score one modality, and the model predicts {', '.join([self.modality, *others])}: choose "
                f"one, for instance --model.task.only {self.modality}."
            )
        self.file_lists = {
            name: given_path(path, f"data.file_lists.{name}") for name, path in (file_lists or {}).items()
        }
        self.longest_side_px, self.max_samples, self.num_workers = longest_side_px, max_samples, num_workers
        self.color_cast = color_cast
        self._skipped_tests: set[str] = set()
        self._missing_tests: dict[str, str] = {}
        self._found: list[tuple[Benchmark, BenchmarkFiles]] = []
        self._loaders: dict[str, BenchmarkLoader] = {}

    @property
    def test_dataset_infos(self) -> list[DatasetInfo]:
        """The benchmarks that were found. Known after ``setup``."""
        return [benchmark.info for benchmark, _ in self._found]

    @property
    def missing_tests(self) -> dict[str, str]:
        """Why benchmarks are left out, by name. Known after ``setup``."""
        return self._missing_tests

    def skip_tests(self, names: Collection[str]) -> None:
        """Deliver no loader for some benchmarks.

        Args:
            names: their names.
        """
        self._skipped_tests = set(names)

    def test_problems(self, name: str) -> dict[str, str]:
        """Return why samples of this rank were left out, by key; what damages an archive has the key "".

        Args:
            name: a benchmark that was found.
        """
        loader = self._loaders[name]
        return ({"": loader.files.damage} if loader.files.damage else {}) | loader.problems

    def setup(self, stage: str) -> None:
        """Find the benchmarks and their samples.

        Args:
            stage: only "test" makes sense.

        Raises:
            InputError: the root does not exist, a name is unknown, a benchmark that is asked for is not there, none is
                there at all, or a file list cannot be used.
        """
        if stage != "test":
            raise InputError("datamodules.Benchmarks is for onestep test; it has nothing to train on.")
        import_all()
        known = benchmarks_of(self.modality)
        self._check_options(known)
        self._found, self._missing_tests, self._loaders = [], {}, {}
        for name in self.benchmarks or known:
            try:
                files = known[name].find(self.root)
            except InputError as error:
                self._missing_tests[name] = str(error)
                continue
            if files is None:
                places = " or ".join((*known[name].archives, *(f"{folder}/" for folder in known[name].folders)))
                self._missing_tests[name] = f"not found in {self.root} or one folder deeper ({places})"
            else:
                self._found.append((known[name], files))
        if not self._found or (self.benchmarks and self.missing_tests):
            raise InputError(self._nothing_found(known))
        for name, reason in self.missing_tests.items():
            rank_zero_info(f"{name} is left out: {printable(reason)}.")
        for benchmark, files in self._found:
            self._loaders[benchmark.name] = self._make_loader(benchmark, files)

    def test_dataloader(self) -> list[BenchmarkLoader]:
        """Return one loader per benchmark that is not to be skipped, in the order of ``test_dataset_infos``."""
        return [loader for name, loader in self._loaders.items() if name not in self._skipped_tests]

    def describe_test(self, name: str) -> dict[str, object]:
        """Return what the scores of a benchmark depend on, beside the model.

        Args:
            name: a benchmark.
        """
        loader = self._loaders[name]
        places = [(root.resolve(), root.stat()) for root in loader.files.roots]
        source = [value for root, stat in places for value in (str(root), stat.st_size, stat.st_mtime_ns)]
        return {
            "source": [*source, len(loader.files.places)],
            "keys": [entry.key for entry in loader.entries],
            "longest_side_px": loader.longest_side_px,
            "value_range": list(loader.benchmark.value_range),
            "max_fit_size_px": loader.benchmark.max_fit_size_px,
        } | ({"color_cast": True} if loader.color_cast else {})

    def _make_loader(self, benchmark: Benchmark, files: BenchmarkFiles) -> BenchmarkLoader:
        entries = benchmark.entries(files, self.file_lists.get(benchmark.name))
        chosen = [entries[index] for index in even_subset(len(entries), self.max_samples)]
        side = benchmark.longest_side_px if self.longest_side_px is None else self.longest_side_px or None
        trainer = self.trainer
        workers = Workers(num_workers=self.num_workers)
        if trainer is not None:
            on_gpu = trainer.strategy.root_device.type == "cuda"
            workers = Workers(trainer.global_rank, trainer.world_size, self.num_workers, pin_memory=on_gpu)
        return BenchmarkLoader(benchmark, files, chosen, side, workers, color_cast=self.color_cast)

    def _nothing_found(self, known: dict[str, Benchmark]) -> str:
        """Say what is missing, and whether there are benchmarks for the other task."""
        if self.benchmarks:
            listed = "; ".join(f"{name}: {reason}" for name, reason in self.missing_tests.items())
            return f"benchmarks are missing. {listed}."
        damaged = [reason for reason in self.missing_tests.values() if "cannot be read" in reason]
        archives = ", ".join(sorted({benchmark.archives[0] for benchmark in known.values()}))
        hints = []
        for other in modalities_with_benchmarks():
            names = [name for name, benchmark in benchmarks_of(other).items() if _is_there(benchmark, self.root)]
            if names and other != self.modality:
                hints.append(f"It holds benchmarks for {other} ({', '.join(names)}), which another model.task scores.")
        looked = f"looked there and one folder deeper for {archives} and what they hold"
        return " ".join([f"{self.root} holds no benchmark for {self.modality} ({looked}).", *hints, *damaged])

    def _check_options(self, known: dict[str, Benchmark]) -> None:
        if not self.root.is_dir():
            raise InputError(f"data.root {self.root} is not a folder. Give the one that holds the benchmarks.")
        for name in (*(self.benchmarks or ()), *self.file_lists):
            if name not in known:
                choice = ", ".join(known) or "none"
                raise InputError(f"there is no benchmark {name!r} for {self.modality}; choose from {choice}.")
        cast = [
            name for name in modalities_with_benchmarks() if any(b.has_color_cast for b in benchmarks_of(name).values())
        ]
        if self.color_cast and self.modality not in cast:
            raise InputError(
                f"data.color_cast repeats an evaluation of {', '.join(cast)}; the task predicts {self.modality}."
            )
        for option, least, most in (("longest_side_px", 0, inf), ("max_samples", 1, inf), ("num_workers", 0, 1024)):
            value = getattr(self, option)
            if value is not None and not least <= value <= most:
                raise InputError(f"data.{option} must be at least {least} and at most {most}, not {value}.")


def _is_there(benchmark: Benchmark, root: Path) -> bool:
    try:
        return benchmark.find(root) is not None
    except InputError:
        return True
