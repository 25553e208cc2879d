"""Tables that come with raw data sets."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from geometry.errors import InputError
from geometry.files.reading import read_text_file


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Return the rows of a CSV file, reduced to the given columns.

    Args:
        path: the file, with or without a byte order mark; its first line names the columns.
        columns: names of the columns wanted.

    Returns:
        One dictionary per row.

    Raises:
        InputError: the file cannot be read, lacks a column, or a row is too short.
    """
    wanted = list(columns)
    try:
        reader = csv.DictReader(io.StringIO(read_text_file(path), newline=""))
        missing = [name for name in wanted if name not in (reader.fieldnames or [])]
        if missing:
            raise InputError(f"{path} has no column {', '.join(missing)}. Is it the right table?")
        rows = [{name: row[name] for name in wanted} for row in reader]
    except csv.Error as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    for number, row in enumerate(rows, start=2):
        if None in row.values():
            raise InputError(f"{path}, row {number} is too short. The file seems to be cut off.")
    return rows
