"""What a benchmark is: where its files are, how they are read, and by which rules it is scored."""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from datamodules.benchmarks.decoding import decode_image
from datamodules.benchmarks.file_list import listed_samples
from datamodules.benchmarks.files import BenchmarkFiles, find_files, open_files
from datamodules.sources.array_files import require_exr_reader
from geometry.batch import ANY_VALUE, DatasetInfo
from geometry.errors import InputError

Array = np.ndarray
_REGISTERED: dict[tuple[str, str], type["Benchmark"]] = {}


class NoGroundTruthError(Exception):
    """There is no ground truth for an image; the message says which file is missing."""


@dataclass(frozen=True)
class Entry:
    """A sample of a benchmark.

    Attributes:
        image: path of the image.
        truth: paths of the ground truth, and of what is needed to read it.
        key: the image's path in the data set without suffix, every slash replaced by two underscores.
    """

    image: str
    truth: tuple[str, ...]
    key: str


@dataclass
class Sample:
    """A decoded sample.

    Attributes:
        image: (H,W,3) uint8, red, green, blue.
        truth: (H,W) or (H,W,C) float32, values of the modality: planar depth in metres, unit normals in our frame.
        mask: (H,W) bool, the pixels that count.
        references: by name, values and mask of what single metrics are measured against in place of the truth
            (``GeometryBatch.references``): (H,W) or (H,W,C) float32 and (H,W) bool, of any size.
        camera: (3,3) float32, ``camera_from_pixel`` of the truth; None where it is unknown.
    """

    image: Array
    truth: Array
    mask: Array
    references: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    camera: Array | None = None


class Benchmark(ABC):
    """A data set with its protocol. A subclass says where the truth of an image is and how it is read.

    Attributes:
        name: name in tables.
        modality: name of the modality whose truth it holds.
        place: place in tables.
        archives: names of the released archives.
        folders: names that extracted folders go by.
        companions: names of further archives or folders, beside the first, that hold the rest of the data set.
        image_pattern: what the path of an image looks like, from the start of the data set's own folders.
        truth: paths of its ground truth from there on, with the named groups of ``image_pattern`` in braces.
        num_images: how many images the published figures are made on; None where that is not known.
        value_range: smallest and largest value that can be true; predictions are clipped to it.
        max_fit_size_px: predictions are fitted on images downsampled to this longest side; None takes all pixels.
        has_equal_sizes: images must have the size of their ground truth.
        longest_side_px: images are shrunk to this longest side before they are predicted; None keeps their size.
        metrics: names of metrics that the protocol asks for beside those of the modality.
        has_own_metrics: whether they stand in place of those of the modality.
        has_color_cast: whether a published evaluation gave the images a colour cast (``loader.cast_colors``).
    """

    name: ClassVar[str]
    modality: ClassVar[str]
    place: ClassVar[int] = 100
    archives: ClassVar[tuple[str, ...]]
    folders: ClassVar[tuple[str, ...]]
    companions: ClassVar[tuple[str, ...]] = ()
    image_pattern: ClassVar[str]
    truth: ClassVar[tuple[str, ...]] = ()
    num_images: ClassVar[int | None] = None
    value_range: ClassVar[tuple[float, float]] = ANY_VALUE
    max_fit_size_px: ClassVar[int | None] = None
    longest_side_px: ClassVar[int | None] = None
    has_equal_sizes: ClassVar[bool] = False
    metrics: ClassVar[tuple[str, ...]] = ()
    has_own_metrics: ClassVar[bool] = False
    has_color_cast: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401
        """Register the class, unless it is a step on the way to others."""
        super().__init_subclass__(**options)
        if "name" in cls.__dict__:
            _REGISTERED[cls.modality, cls.name] = cls

    @property
    def info(self) -> DatasetInfo:
        """What metrics and tables go by."""
        return DatasetInfo(
            self.name,
            {self.modality: self.value_range},
            self.max_fit_size_px,
            self.num_images,
            self.metrics,
            self.has_own_metrics,
        )

    def truth_of(self, image: str) -> tuple[str, ...]:
        """Return the paths of the ground truth that belongs to an image; ``truth`` says them by default.

        Args:
            image: path of the image; of any other, how many there are is right.
        """
        match = self.match(image)
        if match is None:
            return self.truth
        return tuple(image[: match.start(1)] + path.format(**match.groupdict()) for path in self.truth)

    @abstractmethod
    def read_truth(self, files: BenchmarkFiles, paths: Sequence[str]) -> tuple[Array, Array]:
        """Return the ground truth and the mask of the pixels that count, as in ``Sample``.

        Args:
            files: the data set's files.
            paths: what ``truth_of`` returned, or a line of a file list.

        Raises:
            OSError: a file is missing or cannot be read.
            ValueError: a file holds something else.
        """

    def references(self, truth: Array, mask: Array) -> dict[str, tuple[Array, Array]]:
        """Return what single metrics are measured against in place of the truth, by name; nothing by default.

        ``ransac_log`` is the truth by the rules of Pixel-Perfect Depth, which count other pixels.

        Args:
            truth: what ``read_truth`` returned.
            mask: the pixels that count.
        """
        return {}

    def crop(self, values: Array) -> Array:
        """Return the part of an image (H,W,...) that is used; all of it by default."""
        return values

    def find(self, root: Path) -> BenchmarkFiles | None:
        """Return the files of this benchmark under a root, or None if there are none; a damaged archive counts.

        Args:
            root: folder that holds the benchmarks.

        Raises:
            InputError: an archive cannot be read, or a part of the data set is missing.
        """
        for path in find_files(root, self.archives, self.folders):
            files = open_files(path)
            if self.companions and not any(self.match(name) for name in files.places):
                others = [path.parent / name for name in self.companions if (path.parent / name).exists()]
                if not others:
                    wanted = " or ".join(self.companions)
                    raise InputError(f"{path} is only a part of it: put {wanted} beside it")
                files = files.joined([open_files(other) for other in others])
            if files.damage or any(self.match(name) for name in files.places):
                return files
        return None

    def match(self, name: str) -> re.Match[str] | None:
        """Match the path of an image, in whatever folders; the first group begins with the data set's own."""
        return re.fullmatch(f"(?:.*/)?({self.image_pattern})", name)

    def entries(self, files: BenchmarkFiles, file_list: Path | None = None) -> list[Entry]:
        """Return the samples, from a file list or from what is there.

        Args:
            files: the data set's files.
            file_list: lines of an image's path and those of its ground truth, as in Marigold's lists.

        Raises:
            InputError: the list cannot be read, has a line that is too short, or names nothing that is there; a sample
                is there twice; or the package is missing that reads the ground truth.
        """
        if file_list is None:
            found = [(name, self.truth_of(name)) for name in sorted(files.places) if self.match(name)]
            source = str(files.root)
        else:
            found = listed_samples(file_list, files, len(self.truth_of("")))
            source = f"the file list {file_list}"
            if not any(image in files.places for image, _ in found):
                first = f"not even its first, {found[0][0]}" if found else "the list is empty"
                raise InputError(f"{source} of {self.name} names no image that {files.root} holds: {first}.")
        entries = [Entry(image, truth, self._key(image)) for image, truth in found]
        by_key: dict[str, Entry] = {}
        for entry in entries:
            if (other := by_key.setdefault(entry.key, entry)) is not entry:
                raise InputError(
                    f"{self.name}: {source} has the sample {entry.key} twice, as {other.image} and "
                    f"{entry.image}. Remove one, or name the samples in data.file_lists."
                )
        if any(path.endswith(".exr") for entry in entries for path in entry.truth):
            require_exr_reader()
        return entries

    def load(self, files: BenchmarkFiles, entry: Entry) -> Sample:
        """Return a decoded sample, cropped as the protocol asks.

        Args:
            files: the data set's files.
            entry: the sample.

        Raises:
            NoGroundTruthError: there is no ground truth for the image.
            OSError: a file cannot be read.
            ValueError: a file holds something else.
        """
        paths = entry.truth[: len(self.truth_of(entry.image))]
        missing = [path for path in paths if path not in files.places]
        if missing and entry.image in files.places:
            raise NoGroundTruthError(f"no ground truth ({', '.join(missing)})")
        return self.read(files, entry.image, paths)

    def read(self, files: BenchmarkFiles, image: str, paths: Sequence[str]) -> Sample:
        """Return a decoded sample. Replaced where references or a camera come from files, too.

        Args:
            files: the data set's files.
            image: path of the image.
            paths: those of its ground truth.

        Raises:
            NoGroundTruthError: there is no ground truth for the image.
            OSError: a file cannot be read.
            ValueError: a file holds something else.
        """
        truth, mask = self.read_truth(files, paths)
        return Sample(self.crop(decode_image(files.read(image))), truth, mask, self.references(truth, mask))

    def _key(self, image: str) -> str:
        match = self.match(image)
        return (match[1] if match else image).rsplit(".", 1)[0].replace("/", "__")


def benchmarks_of(modality: str) -> dict[str, Benchmark]:
    """Return the benchmarks of a modality by name, in the order of tables.

    Args:
        modality: name of the modality.
    """
    found = [kind for (of, _), kind in _REGISTERED.items() if of == modality]
    return {kind.name: kind() for kind in sorted(found, key=lambda kind: (kind.place, kind.name))}


def modalities_with_benchmarks() -> list[str]:
    """Return the names of the modalities that there are benchmarks of."""
    return sorted({modality for modality, _ in _REGISTERED})
