"""Writing predictions: arrays for programs, 16-bit PNG for tools, colours for people."""

import io
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch

from geometry.colorize import colorize_depth, colorize_normals
from lightning_modules.inference.predictor import Kind

_STRIP_PIXELS = 2_000_000
_RANGE_PIXELS = 1_000_000
_TAIL = 0.02


def result_names(kind: Kind, stem: str) -> list[str]:
    """Return the names of the files that ``write_results`` writes.

    Args:
        kind: depth or normals.
        stem: what the names begin with.
    """
    return [f"{stem}_{kind}.npy", f"{stem}_{kind}.png", f"{stem}_{kind}_color.png"]


def write_results(kind: Kind, prediction: np.ndarray, folder: Path, stem: str) -> None:
    """Write a prediction as array, as 16-bit PNG and in colours, each under a temporary name first.

    Convention:
        Depth: the PNG holds 65535 x depth. Normals: red, green and blue hold 65535 x (x + 1) / 2 and so on.

    Args:
        kind: depth or normals.
        prediction: (H,W) depth in [0, 1], or (H,W,3) normals, float32.
        folder: where to; must exist.
        stem: what the names begin with.
    """
    array, exact, colored = (folder / name for name in result_names(kind, stem))
    write_whole(array, npy_bytes(prediction))
    write_whole(exact, png16_bytes(kind, prediction))
    write_whole(colored, _png(color_picture(kind, prediction)))


def npy_bytes(prediction: np.ndarray) -> bytes:
    """Return a prediction as the bytes of a ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, prediction, allow_pickle=False)
    return buffer.getvalue()


def png16_bytes(kind: Kind, prediction: np.ndarray) -> bytes:
    """Return a prediction as the bytes of a 16-bit PNG; see ``write_results``."""
    scale, offset = (65535.0, 0.5) if kind == "depth" else (32767.5, 32768.0)
    values = np.empty(prediction.shape, np.uint16)
    for rows in _strips(prediction):
        values[rows] = (prediction[rows] * scale + offset).clip(0, 65535)
    return _png(values)


def color_picture(kind: Kind, prediction: np.ndarray) -> np.ndarray:
    """Return a prediction as a picture for people, (H,W,3) uint8. It goes by strips: a large one is much memory.

    Args:
        kind: depth or normals.
        prediction: (H,W) depth, or (H,W,3) normals.
    """
    picture = np.empty((*prediction.shape[:2], 3), np.uint8)
    near, far = _range_of(prediction) if kind == "depth" else (0.0, 1.0)
    for rows in _strips(prediction):
        part = torch.from_numpy(prediction[rows])
        if kind == "depth":
            colors = colorize_depth(part[None, None], near=near, far=far)
        else:
            colors = colorize_normals(part.movedim(-1, 0)[None])
        picture[rows] = (colors[0].movedim(0, -1) * 255).round().byte().numpy()
    return picture


def write_whole(file: Path, content: bytes) -> None:
    """Write a file under a temporary name, then give it its own; a link of that name is replaced, not followed."""
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _png(picture: np.ndarray) -> bytes:
    """Encode (H,W) or RGB (H,W,3), of 8 or 16 bits."""
    is_done, encoded = cv2.imencode(".png", picture if picture.ndim == 2 else picture[..., ::-1])
    assert is_done
    return encoded.tobytes()


def _range_of(depth: np.ndarray) -> tuple[float, float]:
    values = depth.reshape(-1)[:: depth.size // _RANGE_PIXELS + 1]
    near, far = np.quantile(values, [_TAIL, 1 - _TAIL])
    return float(near), float(far)


def _strips(array: np.ndarray) -> list[slice]:
    height, width = array.shape[:2]
    rows = max(1, _STRIP_PIXELS // width)
    return [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
