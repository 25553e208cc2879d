"""The files of an evaluation as a whole: results as JSON, CSV, LaTeX and Markdown."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from lightning_modules.evaluation.files import to_json, write_file
from lightning_modules.evaluation.scores import DatasetScores
from lightning_modules.evaluation.tables import (
    csv_table,
    latex_tables,
    markdown_tables,
    more_is_better,
)
from lightning_modules.metrics.benchmarks.choice import protocol_of, protocol_title


def write_results(
    folder: Path, settings: Mapping[str, Any], headline: str, results: list[DatasetScores], missing: dict[str, str]
) -> None:
    """Write results.json, results.csv, results.tex and results.md.

    Args:
        folder: folder of the evaluation.
        settings: what was evaluated, and how: see ``provenance``.
        headline: the metric that sums up a dataset.
        results: scores so far.
        missing: why datasets are not there, by name.
    """
    metrics = list(dict.fromkeys(name for result in results for name in result.scores))
    document = {
        **settings,
        "headline": headline,
        "protocols": {protocol_of(name): protocol_title(name) for name in metrics if protocol_of(name)},
        "metric_protocols": {name: protocol_of(name) for name in metrics},
        "more_is_better": [name for name in metrics if more_is_better(name)],
        "missing": missing,
        "data_sets": {result.name: asdict(result) for result in results},
    }
    write_file(folder / "results.csv", csv_table(results))
    write_file(folder / "results.tex", latex_tables(headline, results))
    write_file(folder / "results.md", _markdown(settings, headline, results, missing))
    write_file(folder / "results.json", to_json(document))


def _markdown(settings: Mapping[str, Any], headline: str, results: list[DatasetScores], missing: dict[str, str]) -> str:
    parts = ["# Evaluation", _evaluated(settings)]
    if results:
        parts += markdown_tables(headline, results)
    remarks = [f"* {result.name}: {result.remarks()}" for result in results if result.remarks()]
    remarks += [f"* {name}: {reason}" for name, reason in missing.items()]
    if remarks:
        parts += ["## Remarks", "\n".join(remarks)]
    if "model" in settings:
        model = yaml.safe_dump(json.loads(to_json(settings["model"])), sort_keys=False)
        parts += ["## Settings", f"```yaml\n{model}```"]
    return "\n\n".join(parts) + "\n"


def _evaluated(settings: Mapping[str, Any]) -> str:
    """Say whose figures these are, and how they were made."""
    checkpoint, options = settings.get("checkpoint"), settings.get("model", {}).get("init_args") or {}
    network = options.get("network")
    base = (network.get("init_args") or {}).get("base") if isinstance(network, dict) else None
    if checkpoint:
        whose = f"Checkpoint: `{checkpoint}`" + (f" of the base `{base}`" if base else "")
    elif base:
        whose = f"Checkpoint: none; the weights are those of `{base}`"
    else:
        whose = f"Predictions: `{options.get('folder', 'of an unknown model')}`"
    made = {name: settings.get(name) for name in ("step", "weights", "precision", "commit", "date")}
    made["command"] = f"`{settings['command']}`" if settings.get("command") else None
    lines = [f"* {name}: {value}" for name, value in made.items() if value not in (None, "")]
    return "\n\n".join([whose, *(["\n".join(lines)] if lines else [])])
