"""Writing predictions: arrays for programs, 16-bit PNG for tools, colours for people."""

import io
from pathlib import Path

import cv2
import numpy as np
import torch

from geometry.batch import Target
from geometry.colorize import colorize_error, eight_bit
from geometry.errors import InputError
from geometry.files.writing import write_whole
from geometry.modalities import Modality

_STRIP_PIXELS = 2_000_000
_RANGE_PIXELS = 1_000_000
LARGEST_16_BIT = 65535
_SHOWN_SHARE = 0.98
_SMALLEST_SHOWN = 1e-6


def make_output(folder: Path) -> None:
    """Make the folder of the results.

    Args:
        folder: it may be there already.

    Raises:
        InputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise InputError(f"--output {folder} cannot be made a folder: {reason}.") from error


def result_names(kind: str, stem: str) -> list[str]:
    """Return the names of the files that ``write_results`` and ``write_uncertainty`` write.

    Args:
        kind: what they hold, as names say it.
        stem: what the names begin with.
    """
    name = f"{stem}_{kind}"
    return [f"{name}.npy", f"{name}.png", f"{name}_color.png"]


def write_results(modality: Modality, prediction: np.ndarray, folder: Path, stem: str, kind: str | None = None) -> None:
    """Write a prediction as array, as 16-bit PNG and in colours, each under a temporary name first.

    Convention:
        The PNG holds 0 to 65535 for the smallest to the largest published value of the modality: 65535 x depth, or
        65535 x (x + 1) / 2 in red, and so on, for normals.

    Args:
        modality: what is predicted.
        prediction: (H,W) or (H,W,C) float32, published values.
        folder: where to; must exist.
        stem: what the names begin with.
        kind: what is predicted, as names say it; by default the modality's name.
    """
    array, exact, colored = (folder / name for name in result_names(kind or modality.name, stem))
    write_whole(array, npy_bytes(prediction))
    write_whole(exact, png16_bytes(modality, prediction))
    write_whole(colored, png_bytes(visualise(modality, prediction)))


def write_uncertainty(modality: Modality, spread: np.ndarray, folder: Path, stem: str) -> None:
    """Write the spread of a prediction as array, as 16-bit PNG and in colours: the redder, the less sure.

    Convention:
        65535 in the PNG is the modality's ``largest_spread``. The darkest colour is the 98 % quantile of the image.

    Args:
        modality: what is predicted.
        spread: (H,W) float32, in the unit of published values, of normals in degrees.
        folder: where to; must exist.
        stem: what the names begin with.
    """
    array, exact, colored = (folder / name for name in result_names(f"{modality.name}_uncertainty", stem))
    write_whole(array, npy_bytes(spread))
    write_whole(exact, rounded_png16(spread * (LARGEST_16_BIT / modality.largest_spread)))
    sampled = spread.reshape(-1)[:: spread.size // _RANGE_PIXELS + 1]
    largest = max(float(np.quantile(sampled, _SHOWN_SHARE)), _SMALLEST_SHOWN)
    image = np.empty((*spread.shape, 3), np.uint8)
    for rows in _strips(spread):
        plane = _planes(spread[rows])
        image[rows] = eight_bit(colorize_error(plane, torch.ones_like(plane, dtype=torch.bool), largest)[0]).numpy()
    write_whole(colored, png_bytes(image))


def npy_bytes(prediction: np.ndarray) -> bytes:
    """Return a prediction as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, prediction, allow_pickle=False)
    return buffer.getvalue()


def png16_bytes(modality: Modality, prediction: np.ndarray) -> bytes:
    """Return a prediction as the bytes of a 16-bit PNG; see ``write_results``."""
    low, high = modality.value_range
    scale = LARGEST_16_BIT / (high - low)
    offset = 0.5 - low * scale
    values = np.empty(prediction.shape, np.uint16)
    for rows in _strips(prediction):
        values[rows] = (prediction[rows] * scale + offset).clip(0, LARGEST_16_BIT)
    return png_bytes(values)


def rounded_png16(values: np.ndarray) -> bytes:
    """Return numbers (H,W), rounded to those that 16 bits hold, as the bytes of a PNG."""
    return png_bytes((values + 0.5).clip(0, LARGEST_16_BIT).astype(np.uint16))


def visualise(modality: Modality, prediction: np.ndarray, limits: torch.Tensor | None = None) -> np.ndarray:
    """Return a prediction as a visualisation for people, (H,W,3) uint8. It goes by strips: a large one is much memory.

    Args:
        modality: what is predicted.
        prediction: (H,W) or (H,W,C) float32, published values.
        limits: (1,2), the values with the first and the last colour; by default those of the prediction.
    """
    image = np.empty((*prediction.shape[:2], 3), np.uint8)
    limits = modality.color_limits(sample_of(prediction)) if limits is None else limits
    for rows in _strips(prediction):
        colors = modality.colorize(_planes(prediction[rows]), limits=limits)
        image[rows] = eight_bit(colors[0]).numpy()
    return image


def png_bytes(image: np.ndarray) -> bytes:
    """Return an image, (H,W) or RGB (H,W,3) of 8 or 16 bits, as the bytes of a PNG."""
    is_done, encoded = cv2.imencode(".png", image if image.ndim == 2 else image[..., ::-1])
    assert is_done
    return encoded.tobytes()


def jpeg_bytes(image: np.ndarray) -> bytes:
    """Return an RGB image (H,W,3) uint8 as the bytes of a JPEG."""
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def sample_of(prediction: np.ndarray) -> Target:
    """Return enough values of a prediction to know the range of its colours, as if they were a truth."""
    channels = prediction.reshape(prediction.shape[0] * prediction.shape[1], -1)
    values = torch.from_numpy(channels[:: len(channels) // _RANGE_PIXELS + 1].T[None, :, None])
    return Target(values, torch.ones_like(values[:, :1], dtype=torch.bool))


def _planes(prediction: np.ndarray) -> torch.Tensor:
    """Return (H,W) or (H,W,C) as (1,C,H,W)."""
    values = torch.from_numpy(prediction)
    return values[None, None] if values.ndim == 2 else values.movedim(-1, 0)[None]


def _strips(array: np.ndarray) -> list[slice]:
    height, width = array.shape[:2]
    rows = max(1, _STRIP_PIXELS // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
