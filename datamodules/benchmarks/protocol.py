"""What a benchmark is: where its files are, how they are read, and by which rules it is scored."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from datamodules.benchmarks.decoding import decode_image
from datamodules.benchmarks.files import BenchmarkFiles, find_files, open_files
from geometry.errors import InputError

Array = np.ndarray
Geometry = Literal["depth", "normals"]
# What stands in file lists in place of a file that does not exist.
NO_FILE = "None"


class NoGroundTruthError(Exception):
    """There is no ground truth for an image; the message says which file is missing."""


@dataclass(frozen=True)
class Entry:
    """A sample of a benchmark.

    Attributes:
        image: path of the picture.
        truth: paths of the ground truth, and of what is needed to read it.
        key: the picture's path in the data set without suffix, every slash replaced by two underscores.
    """

    image: str
    truth: tuple[str, ...]
    key: str


@dataclass
class Sample:
    """A decoded sample.

    Attributes:
        image: (H,W,3) uint8, red, green, blue.
        truth: (H,W) float32 planar depth in metres, or (H,W,3) float32 unit normals in our frame.
        mask: (H,W) bool, the pixels that count.
    """

    image: Array
    truth: Array
    mask: Array


class Benchmark(ABC):
    """A data set with its protocol. A subclass says where the truth of a picture is and how it is read.

    Attributes:
        name: name in tables.
        geometry: depth or normals.
        archives: names of the released archives.
        folders: names that extracted folders go by.
        image_pattern: what the path of a picture looks like, from the start of the data set's own folders.
        num_images: how many images the published figures are made on.
        depth_range_m: predictions are clipped to this range.
        max_fit_size_px: scale and shift are fitted on images picked down to this longest side; None takes all pixels.
        longest_side_px: images are shrunk to this longest side before they are predicted; None keeps their size.
    """

    name: ClassVar[str]
    geometry: ClassVar[Geometry] = "depth"
    archives: ClassVar[tuple[str, ...]]
    folders: ClassVar[tuple[str, ...]]
    image_pattern: ClassVar[str]
    num_images: ClassVar[int]
    depth_range_m: ClassVar[tuple[float, float]] = (0.0, inf)
    max_fit_size_px: ClassVar[int | None] = None
    longest_side_px: ClassVar[int | None] = None

    @abstractmethod
    def truth_of(self, image: str) -> tuple[str, ...]:
        """Return the paths of the ground truth that belongs to a picture.

        Args:
            image: path of the picture.
        """

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

    def crop(self, values: Array) -> Array:
        """Return the part of an image (H,W,...) that is used; all of it by default."""
        return values

    def find(self, root: Path) -> BenchmarkFiles | None:
        """Return the files of this benchmark under a root, or None if there are none; a damaged archive counts.

        Args:
            root: folder that holds the benchmarks.

        Raises:
            InputError: an archive cannot be read.
        """
        for path in find_files(root, self.archives, self.folders):
            files = open_files(path)
            if files.damage or any(self.match(name) for name in files.places):
                return files
        return None

    def match(self, name: str) -> bool:
        """Whether a path is that of a picture of this benchmark; folders may stand before it."""
        return self._inside(name) is not None

    def entries(self, files: BenchmarkFiles, file_list: Path | None = None) -> list[Entry]:
        """Return the samples, from a file list or from what is there.

        Args:
            files: the data set's files.
            file_list: lines of a picture's path and those of its ground truth, as in Marigold's lists.

        Raises:
            InputError: the list cannot be read, has a line that is too short, or is empty.
        """
        found: Iterator[tuple[str, tuple[str, ...]]]
        if file_list is None:
            found = ((name, self.truth_of(name)) for name in sorted(files.places) if self.match(name))
        else:
            found = _listed(file_list, files)
        entries = [Entry(image, truth, _key(self._inside(image) or image)) for image, truth in found]
        if file_list is not None and not entries:
            raise InputError(f"the file list {file_list} of {self.name} is empty.")
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
        image = self.crop(decode_image(files.read(entry.image)))
        truth, mask = self.read_truth(files, paths)
        return Sample(image, truth, mask)

    def _inside(self, name: str) -> str | None:
        """Return the part of a path from the data set's own folders on, or None if it is no picture of it."""
        match = re.fullmatch(f"(?:.*/)?({self.image_pattern})", name)
        return match[1] if match else None


def _key(path: str) -> str:
    return path.rsplit(".", 1)[0].replace("/", "__")


def _listed(file_list: Path, files: BenchmarkFiles) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the path of each picture in a list, and those of its ground truth, as they are among the files."""
    try:
        lines = file_list.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the file list {file_list} cannot be read ({error}).") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    before = _folder_before({fields[0] for _, fields in rows}, files)
    for number, (image, *truth) in rows:
        if not truth:
            raise InputError(f"{file_list}, line {number}: no ground truth behind the path of the picture {image}.")
        yield before + image, tuple(path if path == NO_FILE else before + path for path in truth)


def _folder_before(images: set[str], files: BenchmarkFiles) -> str:
    """Return the folders that a list leaves out, from the first of its pictures that is there."""
    for name in files.places:
        parts = name.split("/")
        for index in range(len(parts)):
            if "/".join(parts[index:]) in images:
                return "/".join([*parts[:index], ""]) if index else ""
    return ""
