"""Evaluated runs as ``test`` leaves them, and what their settings differ in."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geometry.errors import InputError, one_line, printable
from geometry.files.json_text import read_json_file
from geometry.files.paths import given_path
from lightning_modules.evaluation.scores import DatasetScores, read_samples, scores_from
from lightning_modules.inference.run_config import read_config
from lightning_modules.training.found_runs import run_around

# What differs between any two evaluations, or is shown anyway.
_NOT_SETTINGS = {"data_sets", "headline", "protocols", "metric_protocols", "more_is_better", "missing", "date"}
_NOT_SETTINGS |= {"command", "checkpoint_file"}


@dataclass(frozen=True)
class EvaluatedRun:
    """Results of a run.

    Attributes:
        name: what it is called in tables: as it was named.
        folder: folder of its results.json.
        document: content of results.json.
        datasets: scores by dataset.
        samples: by dataset, the metrics of every sample by key.
    """

    name: str
    folder: Path
    document: Mapping[str, Any]
    datasets: Mapping[str, DatasetScores]
    samples: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def settings(self) -> dict[str, Any]:
        """What the results depend on, and the configuration of training where it is there: values by dotted key."""
        found = flatten({key: value for key, value in self.document.items() if key not in _NOT_SETTINGS})
        checkpoint = self.document.get("checkpoint")
        config = run_around(Path(checkpoint).absolute()) / "config.yaml" if isinstance(checkpoint, str) else Path()
        if config.is_file():
            found |= {f"config.{key}": value for key, value in flatten(read_config([config])).items()}
        return found


def read_run(source: str) -> EvaluatedRun:
    """Return the results of a run.

    Args:
        source: folder that ``test`` wrote, or that of the run, whose only test is then taken.

    Raises:
        InputError: there are no results, several, or they cannot be read.
    """
    folder = _folder_of(source)
    try:
        document = read_json_file(folder / "results.json")
        datasets = {name: scores_from(scores) for name, scores in document["data_sets"].items()}
        samples = {scores.name: read_samples(folder / scores.name / "samples.csv") for scores in datasets.values()}
        for name, scores in datasets.items():
            if len(samples[name]) != scores.num_images:
                raise ValueError(f"{name}/samples.csv has {len(samples[name])} of {scores.num_images} images")
    except (ValueError, TypeError, KeyError, AttributeError, csv.Error) as error:
        raise InputError(
            f"the results in {folder} cannot be read ({one_line(error, 200)}); test the run again."
        ) from error
    return EvaluatedRun(source.rstrip("/"), folder, document, datasets, samples)


def require_different(runs: Sequence[EvaluatedRun]) -> None:
    """Check that no two runs are the same results by other names.

    Args:
        runs: the runs.

    Raises:
        InputError: two are.
    """
    seen: dict[Path, str] = {}
    for run in runs:
        other = seen.setdefault(run.folder.resolve(), run.name)
        if other != run.name:
            raise InputError(f"{other} and {run.name} are the same results; name two tests.")


def differing_settings(runs: Sequence[EvaluatedRun]) -> list[list[str]]:
    """Return a heading and one row per setting that is not the same in all runs; absent values are empty.

    Args:
        runs: the runs.
    """
    settings = [run.settings for run in runs]
    keys = sorted({key for each in settings for key in each})
    rows = [[printable(key), *("" if key not in each else printable(each[key]) for each in settings)] for key in keys]
    return [["setting", *(run.name for run in runs)], *(row for row in rows if len(set(row[1:])) > 1)]


def flatten(document: Any, before: str = "") -> dict[str, Any]:  # noqa: ANN401 - whatever YAML or JSON holds
    """Return the values of nested mappings by dotted key; lists are values.

    Args:
        document: a mapping, or a value.
        before: key of the mapping itself.
    """
    if not isinstance(document, Mapping) or not document:
        return {before: document}
    return {
        key: value
        for name, inner in document.items()
        for key, value in flatten(inner, f"{before}.{name}" if before else str(name)).items()
    }


def _folder_of(source: str) -> Path:
    folder = given_path(source, "the run")
    if (folder / "results.json").is_file():
        return folder
    found = sorted(path.parent for path in folder.glob("test*/results.json"))
    if not found:
        raise InputError(f"{source} holds no results.json; test the run first: onestep test ...")
    if len(found) > 1:
        names = ", ".join(str(path) for path in found)
        raise InputError(f"{source} holds results of several tests; name the one that is meant: {names}.")
    return found[0]
