"""Intrinsics in JSON files as RealSense, Open3D, Azure Kinect, nerfstudio and people write them."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import numpy as np

Numbers = tuple[float, float, float, float]

_NAMES = (("fx", "fy", "cx", "cy"), ("fx", "fy", "ppx", "ppy"), ("fl_x", "fl_y", "cx", "cy"))
_MATRICES = ("intrinsics", "K", "camera_matrix", "cam_in", "intrinsic_matrix")
# Where a file describes several cameras, the one that took the images.
_OF_COLOR = ("color", "colour", "rgb", "image")
_OF_IMAGE = ("file_path", "file_name", "filename", "image", "name")
_MAX_NESTING = 8
EXPECTED = "fx fy cx cy, a 3x3 or a 4x4 matrix"


def intrinsics_in(document: Any, identifier: str | None = None) -> Numbers:  # noqa: ANN401 - any JSON
    """Return the intrinsics that a JSON document holds.

    Convention:
        Numbers are found by their names: fx, fy, cx, cy; ppx, ppy of RealSense; fl_x, fl_y of nerfstudio; a matrix
        under intrinsics, K, camera_matrix, cam_in or intrinsic_matrix. A flat intrinsic_matrix is read by columns, as
        Open3D writes it, and a matrix whose last column is (0, 0, 1) is transposed. They may be nested; of several
        cameras the one under color, rgb or image is taken. A document with an entry per image, by name or in a list of
        objects with a file_path, file_name, image or name, gives the entry of the image.

    Args:
        document: the decoded document.
        identifier: id of the image, its path without extension; None for a camera of all images.

    Returns:
        (fx, fy, cx, cy) in pixels.

    Raises:
        ValueError: there are none, several different ones, or none for the image.
    """
    entries = dict(_entries(document))
    if entries and identifier is not None:
        entry = entries.get(identifier, entries.get(PurePath(identifier).name))
        if entry is None:
            raise ValueError(f"it has cameras of {len(entries)} images, and none of image {identifier!r}")
        is_own = next(_cameras(entry), None) is not None
        document = entry if is_own or isinstance(document, list) else _without_lists(document)
    if not isinstance(document, dict):
        return _from_array(np.asarray(document, np.float64), by_columns=False)
    cameras = list(_cameras(document))
    of_color = [(path, numbers) for path, numbers in cameras if any(word in path.lower() for word in _OF_COLOR)]
    different = dict.fromkeys(numbers for _, numbers in (of_color or cameras))
    if not different:
        raise ValueError(
            f"it has neither {' nor '.join(', '.join(names) for names in _NAMES)} nor one of {', '.join(_MATRICES)}"
        )
    if len(different) > 1:
        places = ", ".join(path or "the top" for path, _ in (of_color or cameras)[:5])
        raise ValueError(f"it describes several cameras ({places}); keep the one of the images")
    return next(iter(different))


def has_entries(document: Any) -> bool:  # noqa: ANN401 - any JSON
    """Return whether a document has an entry per image."""
    return next(_entries(document), None) is not None


def _cameras(node: Any, path: str = "", level: int = 0) -> Iterator[tuple[str, Numbers]]:  # noqa: ANN401
    """Yield all cameras with where they are, the outer ones first."""
    if not isinstance(node, dict | list) or level > _MAX_NESTING:
        return
    if isinstance(node, list):
        for number, value in enumerate(node if any(isinstance(value, dict) for value in node) else ()):
            yield from _cameras(value, f"{path}[{number}]", level + 1)
        return
    for names in _NAMES:
        if all(name in node for name in names):
            fx, fy, cx, cy = (float(node[name]) for name in names)
            yield path, (fx, fy, cx, cy)
            return
    for key in _MATRICES:
        if key in node and not isinstance(node[key], dict):
            yield f"{path}.{key}".lstrip("."), _from_array(np.asarray(node[key], np.float64), key == "intrinsic_matrix")
            return
    for key, value in node.items():
        yield from _cameras(value, f"{path}.{key}".lstrip("."), level + 1)


def _entries(document: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    """Yield the entries per image, by the image's path without extension and by its name alone."""
    if not isinstance(document, dict | list):
        return
    lists = [document] if isinstance(document, list) else [document[key] for key in _lists(document)]
    for item in (item for items in lists for item in items if isinstance(item, dict)):
        name = next((item[key] for key in _OF_IMAGE if isinstance(item.get(key), str)), None)
        if name is not None:
            yield from _by_names(name, item)
    for name, value in document.items() if isinstance(document, dict) else ():
        if PurePath(name).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"):
            yield from _by_names(name, value)


def _by_names(name: str, entry: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    path = PurePath(name.replace("\\", "/"))
    for stem in dict.fromkeys((path.with_suffix("").as_posix(), path.stem)):
        yield stem, entry


def _lists(document: dict[str, Any]) -> list[str]:
    """Return the keys under which a document lists objects, one an image perhaps."""
    return [key for key, value in document.items() if isinstance(value, list) and value and isinstance(value[0], dict)]


def _without_lists(document: dict[str, Any]) -> dict[str, Any]:
    """Return what a document says of all images."""
    return {key: value for key, value in document.items() if key not in _lists(document)}


def _from_array(numbers: np.ndarray, by_columns: bool) -> Numbers:
    """Return the intrinsics of 4 numbers, or of a 3x3 or 4x4 matrix."""
    flat = numbers.flatten()
    if flat.size in (9, 16):
        side = 3 if flat.size == 9 else 4
        matrix = flat.reshape(side, side)[:3, :3]
        is_flat = by_columns and numbers.ndim == 1
        if is_flat or (matrix[2].tolist() != [0, 0, 1] and matrix[:, 2].tolist() == [0, 0, 1]):
            matrix = matrix.T
        if matrix[0, 1] != 0 or matrix[1, 0] != 0 or matrix[2].tolist() != [0, 0, 1]:
            raise ValueError("the matrix is no pinhole without skew: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
        flat = np.array([matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]])
    if flat.size != 4:
        raise ValueError(f"it holds {flat.size} numbers; expected {EXPECTED}")
    fx, fy, cx, cy = flat.tolist()
    return fx, fy, cx, cy


def intrinsics_of_text(text: str) -> Numbers:
    """Return the intrinsics in a text of numbers: fx fy cx cy, a 3x3 or a 4x4 matrix by rows.

    Raises:
        ValueError: it holds something else.
    """
    return _from_array(np.array([float(word) for word in text.replace(",", " ").split()]), by_columns=False)
