"""JSON from elsewhere: bounded in length and depth."""

import json
from typing import Any

from geometry.errors import InputError
from geometry.files.limits import MAX_JSON_BYTES


def parse_json(data: bytes, max_bytes: int = MAX_JSON_BYTES) -> Any:  # noqa: ANN401
    """Return the value that a JSON text holds.

    Args:
        data: the text, UTF-8, with or without a byte order mark.
        max_bytes: largest length.

    Returns:
        Whatever it is. Whole numbers may have hundreds of digits: compare them before they become floats.

    Raises:
        InputError: the text is longer, no JSON, or nested too deeply.
    """
    if len(data) > max_bytes:
        raise InputError(f"the JSON has more than {max_bytes} bytes")
    try:
        return json.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except RecursionError as error:
        raise InputError("the JSON is nested too deeply") from error
    except ValueError as error:
        raise InputError(f"the JSON cannot be read ({error})") from error


def is_finite_number(value: object) -> bool:
    """Return whether a JSON value is a number (not a truth value) that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1.7e308
