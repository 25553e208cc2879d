"""Pixels whose depth is known, by image: from a table, or from the sparse points of COLMAP."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from geometry.errors import InputError
from geometry.files.reading import read_text_file
from lightning_modules.inference.photos import Photo

_IMAGE_COLUMNS = ("image", "name")


def read_anchors(path: Path, photos: Sequence[Photo]) -> dict[Path, np.ndarray]:
    """Return the anchors (N,3) float64 of each photo that has some: x, y in pixels, depth.

    Convention:
        x grows to the right and y down, the centre of the first pixel lies at (0.5, 0.5), in pixels of the upright
        image. Depth is planar, along the optical axis, in metres; from COLMAP in the unit of its reconstruction.
        The table has the columns x, y and metres, and for more than one photo image or name: the name of a file, or
        the end of its path.

    Args:
        path: a CSV file, or the folder of a COLMAP model as text (images.txt and points3D.txt).
        photos: the photos.

    Raises:
        InputError: it cannot be read, a value is impossible, a name fits several photos, or no photo has anchors.
    """
    rows = _colmap_rows(path) if path.is_dir() else _table_rows(path, len(photos))
    by_name: dict[str, list[tuple[float, float, float]]] = {}
    for name, *values in rows:
        by_name.setdefault(str(name), []).append((float(values[0]), float(values[1]), float(values[2])))
    found: dict[Path, np.ndarray] = {}
    for name, anchors in by_name.items():
        meant = photos if name == "" else [photo for photo in photos if _is_named(photo.file, name)]
        if len(meant) > 1:
            raise InputError(
                f"--anchors {path}: {name} may be {meant[0].file} or {meant[1].file}; give more of the path."
            )
        if meant:
            found[meant[0].file] = np.array(anchors, np.float64)
    if not found:
        named = next(iter(by_name), "none")
        raise InputError(
            f"--anchors {path} has no anchor for any of the images; the first image that it names is {named}."
        )
    return found


def _is_named(file: Path, name: str) -> bool:
    parts = Path(name).parts
    return bool(parts) and file.parts[-len(parts) :] == parts


def _table_rows(path: Path, num_photos: int) -> Iterable[tuple[str, float, float, float]]:
    try:
        table = csv.DictReader(io.StringIO(read_text_file(path), newline=""))
        rows, columns = list(table), [name or "" for name in table.fieldnames or []]
    except csv.Error as error:
        raise InputError(f"--anchors {path} cannot be read ({error}).") from error
    image = next((name for name in _IMAGE_COLUMNS if name in columns), None)
    missing = [name for name in ("x", "y", "metres") if name not in columns]
    if missing or (image is None and num_photos > 1):
        lacking = ", ".join(missing) or "image"
        raise InputError(f"--anchors {path} has no column {lacking}; its first line must name image, x, y and metres.")
    return [_row(path, number, row, image) for number, row in enumerate(rows, start=2)]


def _row(path: Path, number: int, row: Mapping[str, str | None], image: str | None) -> tuple[str, float, float, float]:
    x, y, metres = anchor_of([row[name] for name in ("x", "y", "metres")], f"--anchors {path}, line {number}")
    name = (row[image] or "").strip() if image else ""
    if image and not name:
        raise InputError(f"--anchors {path}, line {number} names no image.")
    return name, x, y, metres


def anchor_of(words: Sequence[str | None], place: str) -> tuple[float, float, float]:
    """Return x, y and metres of an anchor that is written down.

    Args:
        words: the three numbers as text.
        place: where it is written, for the message.

    Raises:
        InputError: they are no three numbers, or impossible ones.
    """
    try:
        x, y, metres = (float(word or "") for word in words)
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: x, y and metres must be numbers.") from error
    if not (math.isfinite(x) and math.isfinite(y) and 0 < metres < math.inf):
        raise InputError(f"{place}: x and y must be finite, and metres larger than 0.")
    return x, y, metres


def _colmap_rows(folder: Path) -> list[tuple[str, float, float, float]]:
    """Return name, x, y and depth of every observation of a point; points behind a camera are none."""
    try:
        points = {
            int(fields[0]): np.array(fields[1:4], np.float64)
            for fields in _colmap_lines(folder / "points3D.txt", False)
        }
        rows = []
        lines = _colmap_lines(folder / "images.txt", True)
        for head, observed in zip(lines[::2], lines[1::2], strict=True):
            if len(head) < 10:
                raise ValueError("an image has no name")
            qw, qx, qy, qz, _, _, tz = (float(value) for value in head[1:8])
            third_row = np.array([2 * (qx * qz - qw * qy), 2 * (qy * qz + qw * qx), 1 - 2 * (qx**2 + qy**2)])
            for x, y, number in zip(observed[::3], observed[1::3], observed[2::3], strict=True):
                depth = third_row @ points[int(number)] + tz if int(number) in points else 0.0
                if not all(map(math.isfinite, (float(x), float(y), depth))):
                    raise ValueError("a number is not finite")
                if depth > 0:
                    rows.append((" ".join(head[9:]), float(x), float(y), float(depth)))
    except (ValueError, IndexError) as error:
        raise InputError(f"--anchors {folder}: images.txt and points3D.txt are not as COLMAP writes them.") from error
    return rows


def _colmap_lines(file: Path, keep_empty: bool) -> list[list[str]]:
    if not file.is_file():
        raise InputError(f"--anchors: {file} is missing; export the model as text (colmap model_converter).")
    lines = [line for line in read_text_file(file).splitlines() if not line.startswith("#")]
    return [line.split() for line in lines if keep_empty or line.strip()]
