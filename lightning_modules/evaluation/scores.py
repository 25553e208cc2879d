"""What came out for one dataset, and the files that hold it."""

import csv
import io
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from geometry.errors import printable
from geometry.files.json_text import read_json_file
from geometry.files.reading import read_text_file
from lightning_modules.command_line.tables import format_csv
from lightning_modules.evaluation.files import to_json, write_file


@dataclass(frozen=True)
class DatasetScores:
    """What came out for one dataset.

    Attributes:
        name: name of the dataset.
        identity: hash of the model and its settings, a hyphen, hash of the data and its rules.
        scores: metrics by name, over the samples that could be scored. Those of a protocol other than least squares
            begin with its name and a slash.
        num_images: how many samples were scored.
        num_images_published: how many the published figures are made on, or None.
        problems: why samples were left out, by key; the key "" stands for the dataset as a whole.
        calibration: curves and table of ``Calibration.describe``, if uncertainty was measured.
    """

    name: str
    identity: str
    scores: dict[str, float]
    num_images: int
    num_images_published: int | None
    problems: dict[str, str]
    calibration: dict[str, Any] | None = None

    def remarks(self) -> str:
        """Return in words what is unusual: other numbers of images than published, samples left out."""
        found = []
        if self.num_images_published not in (None, self.num_images):
            found.append(f"published on {self.num_images_published} images")
        left_out = sorted(key for key in self.problems if key)
        if left_out:
            found.append(f"{len(left_out)} left out, the first {left_out[0]}: {self.problems[left_out[0]]}")
        if self.num_images and any(math.isnan(value) for value in self.scores.values()):
            found.append("predictions are not finite: see the samples without numbers in samples.csv")
        return printable("; ".join([*found, *([self.problems[""]] if "" in self.problems else [])]))


_SCORES = TypeAdapter(DatasetScores)


def read_scores(folder: Path) -> DatasetScores | None:
    """Return the scores that a dataset's folder holds, or None.

    Args:
        folder: folder of the dataset.
    """
    try:
        return scores_from(read_json_file(folder / "scores.json"))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def scores_from(document: dict[str, Any]) -> DatasetScores:
    """Return the scores that a file holds.

    Args:
        document: content of scores.json, or of a dataset in results.json.

    Raises:
        ValueError: it is something else, or its name leads elsewhere; or TypeError, KeyError or AttributeError.
    """
    scores = {name: math.nan if value is None else value for name, value in document["scores"].items()}
    found = _SCORES.validate_python({**document, "scores": scores})
    if not _is_file_name(found.name) or any(printable(name) != name for name in scores):
        raise ValueError(f"{printable(found.name)[:60]!r} or one of its metrics is no usable name")
    return found


def write_scores(folder: Path, scores: DatasetScores, rows: dict[str, dict[str, float]]) -> None:
    """Write a dataset's samples.csv, then its scores.json.

    Args:
        folder: folder of the dataset.
        scores: its scores.
        rows: metrics of every sample by key; a metric that a sample cannot have, such as one of edges, is missing.
    """
    names = list(scores.scores)
    table = [["key", *names, "left_out"]]
    for key in sorted(rows):
        table.append([key, *(repr(rows[key][name]) if name in rows[key] else "" for name in names), ""])
    for key in sorted(key for key in scores.problems if key):
        table.append([key, *("" for _ in names), scores.problems[key]])
    write_file(folder / "samples.csv", format_csv(table))
    write_file(folder / "scores.json", to_json(asdict(scores)))


def read_samples(file: Path) -> dict[str, dict[str, float]]:
    """Return the metrics of every sample in a samples.csv, by key.

    Args:
        file: the file.

    Raises:
        ValueError: it cannot be read, holds something else, or is cut off; or KeyError.
    """
    rows = list(csv.DictReader(io.StringIO(read_text_file(file), newline="")))
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values() or not _is_file_name(row["key"]):
            raise ValueError(f"line {number} of {file.name} is cut off or damaged")
    return {
        row["key"]: {name: float(value) for name, value in row.items() if value and name not in ("key", "left_out")}
        for row in rows
        if not row["left_out"]
    }


def _is_file_name(name: str) -> bool:
    """Say whether a name stays in the folder that it is joined to, and can be shown."""
    return name not in ("", ".", "..") and not set("/\\") & set(name) and printable(name) == name
