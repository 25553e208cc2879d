"""Values of your own data, in any of the common notations."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datamodules.sources.array_files import ARRAY_SUFFIXES, read_array_file
from datamodules.sources.image_files import read_image
from geometry.errors import InputError
from geometry.modalities import Modality

Array = np.ndarray


def read_values(path: Path, modality: Modality, size: tuple[int, int]) -> Array:
    """Return the values in a file, as the modality reads them.

    Args:
        path: file of a format that ``read_array_file`` takes, or an image file where those can hold the modality.
        modality: what the values are.
        size: (height, width) of the image.

    Returns:
        float32, in the shape that the modality stores.

    Raises:
        InputError: the file cannot be read, is of another size, or its numbers have no meaning.
    """
    is_array = path.suffix.lower() in ARRAY_SUFFIXES
    numbers = read_array_file(path, modality.num_channels) if is_array else read_image(path)
    try:
        return modality.read_file(require_size(numbers, size, path))
    except InputError as error:
        raise error if str(path) in str(error) else InputError(f"{path}: {error}.") from error


def read_normals(path: Path, size: tuple[int, int]) -> Tensor:
    """Return the normals in a file, in the file's own frame.

    Convention:
        Whole numbers from 0 to their type's maximum (255, 65535) stand for components from -1 to 1. All zero, and
        vectors far from unit length such as mid grey, are unknown.

    Args:
        path: file of a format that ``read_array_file`` takes.
        size: (height, width) of the image.

    Returns:
        (3,H,W) float32 of about unit length, exactly 0 where unknown.

    Raises:
        InputError: the file cannot be read, is of another size, or holds no vector of about unit length.
    """
    stored = require_size(read_array_file(path, 3), size, path)
    vectors = stored.astype(np.float32)
    if stored.dtype.kind == "i":
        raise InputError(
            f"{path} holds signed whole numbers ({stored.dtype}). Store floating-point numbers, or 0 to 255."
        )
    if stored.dtype.kind == "u":
        vectors = vectors * np.float32(2 / np.iinfo(stored.dtype).max) - 1
    squared_length = np.square(vectors).sum(axis=-1)
    # NaN compares as unknown. Length is between one half and two.
    known = (squared_length > 0.25) & (squared_length < 4) & (stored != 0).any(axis=-1)
    if not known.any() and (stored != 0).any():
        raise InputError(
            f"{path} holds no unit vector. Normals are x, y, z from -1 to 1, or whole numbers for that range."
        )
    return torch.from_numpy(np.where(known[..., None], vectors, np.float32(0))).permute(2, 0, 1)


def require_size(array: Array, size: tuple[int, int], path: Path) -> Array:
    """Return an array of a file as it is.

    Raises:
        InputError: it is not (height, width) like its image.
    """
    if array.shape[:2] != tuple(size):
        raise InputError(
            f"{path} is {array.shape[0]}x{array.shape[1]} pixels, its image {size[0]}x{size[1]}. They must be equal."
        )
    return array
