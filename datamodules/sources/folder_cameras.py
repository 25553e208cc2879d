"""Cameras of your own data: intrinsics from numbers, a field of view, or files."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from torch import Tensor

from datamodules.shards.files import file_sha256
from datamodules.sources.camera_json import EXPECTED, Numbers, has_entries, intrinsics_in, intrinsics_of_text
from datamodules.sources.folder_frames import IMAGE_SUFFIXES
from datamodules.sources.pinhole import pinhole_matrix
from datamodules.sources.tables import read_csv
from geometry.command_line import Option
from geometry.errors import InputError
from geometry.files.reading import read_text_file

_CSV_COLUMNS = ("image", "fx", "fy", "cx", "cy")
CAMERA_SUFFIXES = (".txt", ".json")


@dataclass(frozen=True)
class FolderCameras:
    """Cameras.

    Attributes:
        intrinsics: Focal lengths and principal point of all images in pixels.
        cameras: A .txt or .json file with the intrinsics of all images (RealSense's, Open3D's and Azure Kinect's are
            read); a folder with one such file per image; a .json with an entry per image; or a .csv with the columns
            image,fx,fy,cx,cy.
        fov_deg: Horizontal field of view of all images in degrees; square pixels, principal point at the centre.
        pixel_center: Coordinate of the first pixel's centre that the intrinsics count with; 0 as OpenCV, or 0.5.
    """

    intrinsics: Annotated[Numbers | None, Option(metavar=("FX", "FY", "CX", "CY"))] = None
    cameras: Path | None = None
    fov_deg: float | None = None
    pixel_center: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there are intrinsics at all."""
        return self.intrinsics is not None or self.cameras is not None or self.fov_deg is not None

    def options(self) -> dict[str, Any]:
        """Return the choices for ``dataset.json``; a file of cameras by name and content."""
        file = self.cameras if self.cameras is not None and self.cameras.is_file() else None
        return {
            "intrinsics": None if self.intrinsics is None else list(self.intrinsics),
            "cameras": self.cameras and self.cameras.name,
            "cameras_sha256": file and file_sha256(file),
            "fov_deg": self.fov_deg,
            "pixel_center": self.pixel_center,
        }

    def check(self) -> None:
        """Check what can be checked without an image.

        Raises:
            InputError: more than one source is given, the file is missing or cannot be used, or the field of view is
                out of range.
        """
        given = [self.intrinsics is not None, self.cameras is not None, self.fov_deg is not None]
        if sum(given) > 1:
            raise InputError("give one of --intrinsics, --cameras and --fov_deg, not several.")
        if self.pixel_center not in (0.0, 0.5):
            raise InputError(f"--pixel_center is 0 or 0.5, not {self.pixel_center}.")
        if self.fov_deg is not None and not 0 < self.fov_deg < 180:
            raise InputError(f"--fov_deg must lie between 0 and 180 degrees, not {self.fov_deg}.")
        if self.cameras is not None and not self.cameras.exists():
            raise InputError(f"{self.cameras} does not exist. --cameras takes a file or a folder.")
        if self.cameras is not None and self.cameras.is_file():
            self._check_file(self.cameras)

    def _check_file(self, file: Path) -> None:
        """Read the cameras of all images, so that a fault is known before the first image is read."""
        if file.suffix.lower() == ".csv":
            _read_table(file)
            return
        with _named(file):
            is_table = file.suffix.lower() == ".json" and has_entries(_read_json(file))
        if not is_table:
            read_intrinsics_file(file)

    def matrix(self, identifier: str, size: tuple[int, int]) -> tuple[Tensor, str]:
        """Return the intrinsics of an image.

        Args:
            identifier: id of the image: its path below the folder of images, without extension.
            size: (height, width) of the image in pixels.

        Returns:
            K (3,3) float64 in pixels, and where it comes from: "own" or "fov".

        Raises:
            InputError: there is no entry for the image, it cannot be read, or it does not fit the image.
        """
        if self.fov_deg is not None:
            focal = size[1] / 2 / math.tan(math.radians(self.fov_deg) / 2)
            edge = self.pixel_center - 0.5
            numbers, source = (focal, focal, size[1] / 2 + edge, size[0] / 2 + edge), "--fov_deg"
        elif self.intrinsics is not None:
            numbers, source = self.intrinsics, "--intrinsics"
        else:
            assert self.cameras is not None, "asked for a camera without any"
            numbers, source = _from_files(self.cameras, identifier)
        return pinhole_matrix(numbers, size, source, identifier), "own" if self.fov_deg is None else "fov"


def _from_files(files: Path, identifier: str) -> tuple[Numbers, str]:
    """Return (fx, fy, cx, cy) and the file they come from."""
    if files.suffix.lower() == ".csv":
        table = _read_table(files)
        if identifier not in table:
            raise InputError(f"{files} has no row for image {identifier!r} (column image: path without extension).")
        return table[identifier], str(files)
    if not files.is_dir():
        return read_intrinsics_file(files, identifier), str(files)
    for suffix in CAMERA_SUFFIXES:
        path = files / f"{identifier}{suffix}"
        if path.is_file():
            return read_intrinsics_file(path, identifier), str(path)
    raise InputError(f"{files} holds no {identifier}.txt or {identifier}.json with the intrinsics of that image.")


@lru_cache(maxsize=4)
def _read_table(path: Path) -> dict[str, Numbers]:
    table = {}
    for number, row in enumerate(read_csv(path, _CSV_COLUMNS), start=2):
        try:
            fx, fy, cx, cy = (float(row[name]) for name in _CSV_COLUMNS[1:])
        except ValueError as error:
            raise InputError(f"{path}, row {number}: fx, fy, cx and cy must be numbers ({error}).") from error
        name = row["image"].replace("\\", "/")
        stem, dot, suffix = name.rpartition(".")
        table[stem if f"{dot}{suffix}".lower() in IMAGE_SUFFIXES else name] = (fx, fy, cx, cy)
    return table


def read_intrinsics_file(path: Path, identifier: str | None = None) -> Numbers:
    """Return the intrinsics in a text or JSON file.

    Args:
        path: a .txt file of 4 numbers (fx fy cx cy), a 3x3 matrix or a 4x4 matrix; or a .json file, in which they are
            found as ``camera_json.intrinsics_in`` says.
        identifier: id of the image that is asked for, where the file holds an entry for each; None for any.

    Returns:
        (fx, fy, cx, cy) in pixels.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    with _named(path):
        if path.suffix.lower() == ".json":
            return intrinsics_in(_read_json(path), identifier)
        return intrinsics_of_text(read_text_file(path))


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as intrinsics ({error}). Expected {EXPECTED}.") from error


@lru_cache(maxsize=8)
def _read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(read_text_file(path))
