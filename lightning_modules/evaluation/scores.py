"""What came out for one dataset, and the files that hold it."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from geometry.errors import printable
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
    """

    name: str
    identity: str
    scores: dict[str, float]
    num_images: int
    num_images_published: int | None
    problems: dict[str, str]

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


def read_scores(folder: Path) -> DatasetScores | None:
    """Return the scores that a dataset's folder holds, or None.

    Args:
        folder: folder of the dataset.
    """
    try:
        return scores_from(json.loads((folder / "scores.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def scores_from(document: dict[str, Any]) -> DatasetScores:
    """Return the scores that a file holds.

    Args:
        document: content of scores.json, or of a dataset in results.json.

    Raises:
        TypeError: it is something else; or KeyError or AttributeError.
    """
    rest = {key: value for key, value in document.items() if key != "scores"}
    scores = {name: math.nan if value is None else value for name, value in document["scores"].items()}
    return DatasetScores(**rest, scores=scores)


def write_scores(folder: Path, scores: DatasetScores, rows: dict[str, dict[str, float]]) -> None:
    """Write a dataset's samples.csv, then its scores.json.

    Args:
        folder: folder of the dataset.
        scores: its scores.
        rows: metrics of every sample by key; a metric that a sample cannot have, such as one of edges, is missing.
    """
    names = list(scores.scores)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["key", *names, "left_out"])
    for key in sorted(rows):
        table.writerow([key, *(repr(rows[key][name]) if name in rows[key] else "" for name in names), ""])
    for key in sorted(key for key in scores.problems if key):
        table.writerow([key, *("" for _ in names), scores.problems[key]])
    write_file(folder / "samples.csv", text.getvalue())
    write_file(folder / "scores.json", to_json(asdict(scores)))


def read_samples(file: Path) -> dict[str, dict[str, float]]:
    """Return the metrics of every sample in a samples.csv, by key.

    Args:
        file: the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds something else; or KeyError.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        row["key"]: {name: float(value) for name, value in row.items() if value and name not in ("key", "left_out")}
        for row in rows
        if not row["left_out"]
    }
