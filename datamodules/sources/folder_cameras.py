"""Cameras of your own data: intrinsics from numbers, a field of view, or files."""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from datamodules.shards.files import file_sha256
from datamodules.sources.folder_frames import IMAGE_SUFFIXES
from datamodules.sources.pinhole import matrix_of, pinhole_matrix
from datamodules.sources.tables import read_csv
from geometry.errors import InputError
from geometry.files import read_text_file

_CSV_COLUMNS = ("image", "fx", "fy", "cx", "cy")
_JSON_KEYS = ("intrinsics", "K", "camera_matrix", "cam_in")
CAMERA_SUFFIXES = (".txt", ".json")


@dataclass(frozen=True)
class FolderCameras:
    """Where the intrinsics of images come from; at most one of the three is given.

    Attributes:
        intrinsics: (fx, fy, cx, cy) in pixels, for all images.
        files: a .txt or .json file for all images, a folder with one such file per image (``<id>.txt``), or a .csv
            table with the columns image, fx, fy, cx, cy and a row per image.
        fov_deg: horizontal field of view of all images in degrees; square pixels, principal point at the centre.
        pixel_center: coordinate of the centre of the first pixel that ``intrinsics`` and ``files`` count with: 0 as
            OpenCV's calibration, or 0.5.
    """

    intrinsics: tuple[float, float, float, float] | None = None
    files: Path | None = None
    fov_deg: float | None = None
    pixel_center: float = 0.0

    @property
    def known(self) -> bool:
        """Whether there are intrinsics at all."""
        return self.intrinsics is not None or self.files is not None or self.fov_deg is not None

    def options(self) -> dict[str, Any]:
        """Return the choices for ``dataset.json``; a file of cameras by name and content."""
        file = self.files if self.files is not None and self.files.is_file() else None
        return {
            "intrinsics": None if self.intrinsics is None else list(self.intrinsics),
            "cameras": self.files and self.files.name,
            "cameras_sha256": file and file_sha256(file),
            "fov_deg": self.fov_deg,
            "pixel_center": self.pixel_center,
        }

    def check(self) -> None:
        """Check what can be checked without an image.

        Raises:
            InputError: more than one source is given, the file is missing, or the field of view is out of range.
        """
        given = [self.intrinsics is not None, self.files is not None, self.fov_deg is not None]
        if sum(given) > 1:
            raise InputError("give one of --intrinsics, --cameras and --fov-deg, not several.")
        if self.fov_deg is not None and not 0 < self.fov_deg < 180:
            raise InputError(f"--fov-deg must lie between 0 and 180 degrees, not {self.fov_deg}.")
        if self.files is not None and not self.files.exists():
            raise InputError(f"{self.files} does not exist. --cameras takes a file or a folder.")

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
        height, width = size
        if self.fov_deg is not None:
            focal = width / 2 / math.tan(math.radians(self.fov_deg) / 2)
            edge = self.pixel_center - 0.5
            return matrix_of((focal, focal, width / 2 + edge, height / 2 + edge)), "fov"
        if self.intrinsics is not None:
            numbers, source = self.intrinsics, "--intrinsics"
        else:
            assert self.files is not None, "asked for a camera without any"
            numbers, source = _from_files(self.files, identifier)
        return pinhole_matrix(numbers, size, source, identifier), "own"


def _from_files(files: Path, identifier: str) -> tuple[tuple[float, float, float, float], str]:
    """Return (fx, fy, cx, cy) and the file they come from."""
    if files.suffix.lower() == ".csv":
        table = _read_table(files)
        if identifier not in table:
            raise InputError(f"{files} has no row for image {identifier!r} (column image: path without extension).")
        return table[identifier], str(files)
    if not files.is_dir():
        return read_intrinsics_file(files), str(files)
    for suffix in CAMERA_SUFFIXES:
        path = files / f"{identifier}{suffix}"
        if path.is_file():
            return read_intrinsics_file(path), str(path)
    raise InputError(f"{files} holds no {identifier}.txt or {identifier}.json with the intrinsics of that image.")


@lru_cache(maxsize=4)
def _read_table(path: Path) -> dict[str, tuple[float, float, float, float]]:
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


@lru_cache(maxsize=64)
def read_intrinsics_file(path: Path) -> tuple[float, float, float, float]:
    """Return the intrinsics in a text or JSON file.

    Args:
        path: a .txt file of 4 numbers (fx fy cx cy), a 3x3 matrix or a 4x4 matrix; or a .json file with fx, fy, cx and
            cy, or with such numbers by themselves or under "intrinsics", "K", "camera_matrix" or "cam_in".

    Returns:
        (fx, fy, cx, cy) in pixels.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    expected, text = "expected fx fy cx cy, a 3x3 or a 4x4 matrix", read_text_file(path)
    try:
        if path.suffix.lower() == ".json":
            numbers = np.asarray(_numbers_of_json(json.loads(text)), np.float64).flatten()
        else:
            numbers = np.array([float(word) for word in text.replace(",", " ").split()])
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as intrinsics ({error}); {expected}.") from error
    if numbers.size in (9, 16):
        matrix = numbers.reshape(3, 3) if numbers.size == 9 else numbers.reshape(4, 4)[:3, :3]
        if matrix[0, 1] != 0 or matrix[1, 0] != 0 or matrix[2].tolist() != [0, 0, 1]:
            raise InputError(f"{path}: the matrix is no pinhole without skew: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]].")
        numbers = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
    if numbers.size != 4:
        raise InputError(f"{path} holds {numbers.size} numbers; {expected}.")
    fx, fy, cx, cy = numbers.tolist()
    return fx, fy, cx, cy


def _numbers_of_json(document: Any) -> Any:  # noqa: ANN401
    if not isinstance(document, dict):
        return document
    if set(_CSV_COLUMNS[1:]) <= set(document):
        return [document[name] for name in _CSV_COLUMNS[1:]]
    for key in _JSON_KEYS:
        if key in document:
            return document[key]
    raise ValueError(f"it has neither fx, fy, cx, cy nor one of {', '.join(_JSON_KEYS)}")
