"""Files of an evaluation: written complete or not at all."""

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pydantic_core import to_jsonable_python

from geometry.errors import InputError
from geometry.files.writing import write_whole


def save_array(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, complete or not at all.

    Args:
        path: where to.
        values: any array of numbers.
    """
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_file(path, buffer.getvalue())


def make_writable(folder: Path, option: str = "--evaluation.output") -> None:
    """Make the folder of the results, before hours are spent on results that cannot be written.

    Args:
        folder: the folder.
        option: the option that names another.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(f"results cannot be written to {folder} ({error}); give another {option}.") from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, complete or not at all; its folder is made.

    Args:
        path: where to.
        content: text or bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def to_json(document: dict[str, Any]) -> str:
    """Return JSON, with null for what is no number: a dataset without any image has no score.

    Args:
        document: what is to be written.
    """
    return json.dumps(to_jsonable_python(document, inf_nan_mode="null", fallback=str), indent=1, allow_nan=False) + "\n"
