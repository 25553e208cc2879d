"""JSON from elsewhere: bounded in length and depth, and of letters that can be written again."""

import json
from pathlib import Path
from typing import Any

from geometry.errors import InputError
from geometry.files.limits import MAX_JSON_BYTES, MAX_TEXT_BYTES
from geometry.files.reading import read_regular_file


def read_json_file(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> Any:  # noqa: ANN401
    """Return the value in a JSON file.

    Args:
        path: the file; links are followed.
        max_bytes: refuse larger files.

    Raises:
        InputError: there is no such file, it is no regular file, larger, or holds something else; names it.
    """
    try:
        return parse_json(read_regular_file(path, max_bytes), max_bytes)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}.") from error


def parse_json(data: bytes, max_bytes: int = MAX_JSON_BYTES) -> Any:  # noqa: ANN401
    """Return the value that a JSON text holds.

    Args:
        data: the text, UTF-8, with or without a byte order mark.
        max_bytes: largest length.

    Returns:
        Whatever it is. Whole numbers may have hundreds of digits: compare them before they become floats.

    Raises:
        InputError: the text is longer, no JSON, nested too deeply, or escapes half of a pair of surrogates.
    """
    if len(data) > max_bytes:
        raise InputError(f"the JSON has more than {max_bytes} bytes")
    try:
        value = json.loads(data.removeprefix(b"\xef\xbb\xbf"))
        if b"\\ud" in data or b"\\uD" in data:
            json.dumps(value, ensure_ascii=False).encode()  # half of a pair can be written nowhere
    except RecursionError as error:
        raise InputError("the JSON is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"the JSON cannot be read ({error})") from error
    return value


def is_finite_number(value: object) -> bool:
    """Return whether a JSON value is a number (not a truth value) that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1.7e308
