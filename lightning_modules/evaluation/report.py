"""The files of an evaluation: scores per data set, all results as JSON and Markdown, scores per sample as CSV."""

import csv
import io
import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from geometry.errors import InputError, printable
from geometry.writing import write_whole
from lightning_modules.command_line.tables import format_markdown, format_table
from lightning_modules.evaluation.published import PAPER, PUBLISHED


@dataclass(frozen=True)
class DatasetScores:
    """What came out for one data set.

    Attributes:
        name: name of the data set.
        identity: hash of the model and its settings, a hyphen, hash of the data and its rules.
        scores: metrics by name, over the samples that could be scored.
        num_images: how many samples were scored.
        num_images_published: how many the published figures are made on, or None.
        problems: why samples were left out, by key; the key "" stands for the data set as a whole.
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
    """Return the scores that a data set's folder holds, or None.

    Args:
        folder: folder of the data set.
    """
    try:
        document = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        scores = {name: math.nan if value is None else value for name, value in document.pop("scores").items()}
        return DatasetScores(**document, scores=scores)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_scores(folder: Path, scores: DatasetScores, rows: dict[str, dict[str, float]]) -> None:
    """Write a data set's samples.csv, then its scores.json.

    Args:
        folder: folder of the data set.
        scores: its scores.
        rows: metrics of every sample by key.
    """
    names = list(scores.scores)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["key", *names, "left_out"])
    for key in sorted(rows):
        table.writerow([key, *(repr(rows[key][name]) for name in names), ""])
    for key in sorted(key for key in scores.problems if key):
        table.writerow([key, *("" for _ in names), scores.problems[key]])
    write_file(folder / "samples.csv", text.getvalue())
    write_file(folder / "scores.json", _to_json(asdict(scores)))


def write_results(
    folder: Path, settings: dict[str, Any], headline: str, results: list[DatasetScores], missing: dict[str, str]
) -> None:
    """Write results.json and results.md.

    Args:
        folder: folder of the evaluation.
        settings: what was evaluated.
        headline: the metric that sums up a data set.
        results: scores so far.
        missing: why data sets are not there, by name.
    """
    document = {**settings, "missing": missing, "data_sets": {result.name: asdict(result) for result in results}}
    write_file(folder / "results.json", _to_json(document))
    write_file(folder / "results.md", _markdown(settings, headline, results, missing))


def screen_table(headline: str, results: list[DatasetScores]) -> str:
    """Return all metrics as aligned text, one column per data set.

    Args:
        headline: the metric that stands first.
        results: scores.
    """
    return format_table(_all_metrics(headline, results))


def save_array(path: Path, values: np.ndarray) -> None:
    """Write an array as .npy, complete or not at all.

    Args:
        path: where to.
        values: any array of numbers.
    """
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    write_file(path, buffer.getvalue())


def make_writable(folder: Path) -> None:
    """Make the folder of the results, before hours are spent on results that cannot be written.

    Args:
        folder: the folder.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"results cannot be written to {folder} ({error}); give another --evaluation.output."
        ) from error


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, complete or not at all; its folder is made.

    Args:
        path: where to.
        content: text or bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def _markdown(settings: dict[str, Any], headline: str, results: list[DatasetScores], missing: dict[str, str]) -> str:
    parts = ["# Evaluation", _evaluated(settings)]
    if results:
        parts += [
            _beside_published(headline, results),
            "## All metrics",
            format_markdown(_all_metrics(headline, results)),
        ]
    remarks = [f"* {result.name}: {result.remarks()}" for result in results if result.remarks()]
    remarks += [f"* {name}: {reason}" for name, reason in missing.items()]
    if remarks:
        parts += ["## Remarks", "\n".join(remarks)]
    if "model" in settings:
        model = yaml.safe_dump(json.loads(_to_json(settings["model"])), sort_keys=False)
        parts += ["## Settings", f"```yaml\n{model}```"]
    return "\n\n".join(parts) + "\n"


def _evaluated(settings: dict[str, Any]) -> str:
    """Say in one line whose figures these are."""
    checkpoint, options = settings.get("checkpoint"), settings.get("model", {}).get("init_args") or {}
    network = options.get("network")
    base = (network.get("init_args") or {}).get("base") if isinstance(network, dict) else None
    if checkpoint:
        return f"Checkpoint: `{checkpoint}`" + (f" of the base `{base}`" if base else "")
    if base:
        return f"Checkpoint: none; the weights are those of `{base}`"
    return f"Predictions: `{options.get('folder', 'of an unknown model')}`"


def _beside_published(headline: str, results: list[DatasetScores]) -> str:
    heading, factor, published = PUBLISHED.get(headline, (headline, 1.0, {}))
    ours = {result.name: result.scores[headline] * factor for result in results}
    rows = [[heading, *ours], ["this evaluation", *(_number(value, 2) for value in ours.values())]]
    for method, figures in published.items():
        if figures.keys() & ours.keys():
            rows.append([method, *(f"{figures[name]:.1f}" if name in figures else "" for name in ours)])
    source = f"\n\nPublished figures: {PAPER}" if len(rows) > 2 else ""
    return format_markdown(rows) + source


def _all_metrics(headline: str, results: list[DatasetScores]) -> list[list[str]]:
    names = sorted(results[0].scores, key=lambda name: name != headline)
    rows = [["metric", *(result.name for result in results)]]
    rows += [[name, *(_number(result.scores[name], 4) for result in results)] for name in names]
    return [*rows, ["images", *(str(result.num_images) for result in results)]]


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _to_json(document: dict[str, Any]) -> str:
    """Return JSON, with null for what is no number: a data set without any image has no score."""
    return json.dumps(_without_nan(document), indent=1, default=str, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
