"""Tables of a comparison: every run against the first, dataset by dataset, metric by metric."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from geometry.errors import InputError
from lightning_modules.command_line.tables import format_csv, format_latex, format_markdown
from lightning_modules.comparison.bootstrap import PairedDifference, paired_difference
from lightning_modules.comparison.runs import EvaluatedRun
from lightning_modules.evaluation.tables import more_is_better, number
from lightning_modules.metrics.benchmarks.choice import protocol_title
from lightning_modules.metrics.benchmarks.published import PUBLISHED

_DIGITS = 4


@dataclass(frozen=True)
class Comparison:
    """One run against the first, on one dataset, by one metric.

    Attributes:
        dataset: the dataset.
        metric: the metric.
        run: the run.
        scores: what the first run and this one scored on the whole dataset.
        difference: this run minus the first, over the images that both scored.
    """

    dataset: str
    metric: str
    run: str
    scores: tuple[float, float]
    difference: PairedDifference

    @property
    def verdict(self) -> str:
        """Better or worse where the interval leaves out 0, else empty."""
        if not self.difference.is_clear:
            return ""
        return "better" if (self.difference.mean > 0) == more_is_better(self.metric) else "worse"


def compare_runs(
    runs: Sequence[EvaluatedRun], metrics: Sequence[str], num_resamples: int, seed: int
) -> list[Comparison]:
    """Return all comparisons with the first run, for the datasets and metrics that both runs have.

    Args:
        runs: at least two.
        metrics: names of the metrics.
        num_resamples: resamples of each interval.
        seed: of the draws.

    Raises:
        InputError: the runs have nothing in common.
    """
    first, found = runs[0], []
    for name in first.datasets:
        for metric in metrics:
            for run in runs[1:]:
                if name not in run.datasets or any(metric not in each.datasets[name].scores for each in (first, run)):
                    continue
                pairs = paired_values(first, run, name, metric)
                difference = paired_difference(
                    [a for a, _ in pairs.values()], [b for _, b in pairs.values()], num_resamples, seed=seed
                )
                scores = (first.datasets[name].scores[metric], run.datasets[name].scores[metric])
                found.append(Comparison(name, metric, run.name, scores, difference))
    if not found:
        raise InputError(
            f"the runs have none of the metrics {', '.join(metrics)} on a dataset that both were tested on; see "
            "results.json for what there is, and choose with --metrics."
        )
    return found


def paired_values(
    first: EvaluatedRun, second: EvaluatedRun, dataset: str, metric: str
) -> dict[str, tuple[float, float]]:
    """Return the values of the images that both runs scored, by key.

    Args:
        first: a run.
        second: another.
        dataset: name of the dataset.
        metric: name of the metric.
    """
    ours, theirs = first.samples[dataset], second.samples[dataset]
    keys = [key for key in ours if key in theirs and metric in ours[key] and metric in theirs[key]]
    return {key: (ours[key][metric], theirs[key][metric]) for key in keys}


def chosen_metrics(runs: Sequence[EvaluatedRun], asked: Sequence[str]) -> list[str]:
    """Return the names of the metrics to compare: those asked for, all, or the headline and what papers publish.

    Args:
        runs: the runs.
        asked: names; ``all`` stands for all; none for the default.

    Raises:
        InputError: no run has a metric of a name.
    """
    known = list(dict.fromkeys(m for run in runs for scores in run.datasets.values() for m in scores.scores))
    if "all" in asked:
        return known
    for name in asked:
        if name not in known:
            raise InputError(f"--metrics: no run has {name!r}; there are {', '.join(known)}.")
    published = {table.metric for table in PUBLISHED} | {str(run.document.get("headline")) for run in runs}
    return list(asked) or [name for name in known if name in published or name == "ordinal_accuracy"] or known[:1]


def remarks(runs: Sequence[EvaluatedRun], comparisons: Sequence[Comparison]) -> list[str]:
    """Return what a reader must know: other samples or rules, images left out, missing datasets.

    Args:
        runs: the runs.
        comparisons: what was compared.
    """
    first, found = runs[0], []
    for run in runs[1:]:
        for name in sorted(first.datasets.keys() ^ run.datasets.keys()):
            found.append(f"{name}: only one of {first.name} and {run.name} was tested on it")
        for name in first.datasets.keys() & run.datasets.keys():
            rules = {each.datasets[name].identity.partition("-")[2] for each in (first, run)}
            if len(rules) > 1:
                found.append(f"{name}: {first.name} and {run.name} were tested on other files, samples or sizes")
    for each in comparisons:
        for run in (run for run in runs if run.name in (first.name, each.run)):
            missing = run.datasets[each.dataset].num_images - each.difference.num_images
            if missing > 0:
                found.append(f"{each.dataset}, {each.metric}: {missing} images of {run.name} have no partner")
    return list(dict.fromkeys(found))


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return what tells runs apart, by their names: paths without the folders that all share at either end.

    Args:
        names: of the runs, different ones.
    """
    parts = [list(PurePath(name).parts) for name in names]
    for end in (0, -1):
        while all(len(part) > 1 for part in parts) and len({part[end] for part in parts}) == 1:
            for part in parts:
                del part[end]
    return {name: "/".join(part) for name, part in zip(names, parts, strict=True)}


def comparison_rows(comparisons: Sequence[Comparison], first: str) -> list[list[str]]:
    """Return a heading and a row per comparison, with a column of each run's name where there are more than two.

    Args:
        comparisons: what was compared.
        first: name of the first run.
    """
    others = list(dict.fromkeys(each.run for each in comparisons))
    shown = short_names([first, *others])
    names = [shown[first], shown[others[0]]] if len(others) == 1 else ["run", shown[first], "score"]
    rows = [["dataset", "metric", *names, "difference", "95 % interval", "images", "verdict"]]
    for each in comparisons:
        interval = f"[{_signed(each.difference.low)}, {_signed(each.difference.high)}]"
        rows.append(
            [
                each.dataset,
                each.metric,
                *([shown[each.run]] if len(others) > 1 else []),
                *(number(score, _DIGITS) for score in each.scores),
                _signed(each.difference.mean),
                interval if math.isfinite(each.difference.low) else "-",
                str(each.difference.num_images),
                each.verdict,
            ]
        )
    return rows


def markdown(rows: list[list[str]], settings: list[list[str]], notes: Sequence[str], images: Mapping[str, str]) -> str:
    """Return compare.md.

    Args:
        rows: of ``comparison_rows``.
        settings: of ``differing_settings``.
        notes: remarks.
        images: what a visualisation shows, by its file.
    """
    parts = ["# Comparison", format_markdown(rows), _EXPLANATION]
    if notes:
        parts += ["## Remarks", "\n".join(f"* {note}" for note in notes)]
    parts += ["## Settings that differ", format_markdown(settings) if len(settings) > 1 else "None."]
    if images:
        parts.append("## Images that differ most")
        parts += [f"{text}\n\n![{text}]({file})" for file, text in images.items()]
    return "\n\n".join(parts) + "\n"


def latex(rows: list[list[str]], metrics: Sequence[str]) -> str:
    """Return compare.tex, a table for the package booktabs.

    Args:
        rows: of ``comparison_rows``.
        metrics: names of the metrics.
    """
    protocols = dict.fromkeys(filter(None, map(protocol_title, metrics)))
    caption = f"{_EXPLANATION} Alignment: {'; '.join(protocols)}." if protocols else _EXPLANATION
    return f"% needs \\usepackage{{booktabs}}\n{format_latex(rows, caption)}\n"


def csv_text(comparisons: Sequence[Comparison], first: str) -> str:
    """Return compare.csv, with all digits.

    Args:
        comparisons: what was compared.
        first: name of the first run.
    """
    heading = ["dataset", "metric", "first", "run", "first_score", "score", "difference", "low", "high", "images"]
    rows: list[list[object]] = [[*heading]]
    for each in comparisons:
        found = each.difference
        values = (*each.scores, found.mean, found.low, found.high)
        cells = [repr(value) if math.isfinite(value) else "" for value in values]
        rows.append([each.dataset, each.metric, first, each.run, *cells, found.num_images])
    return format_csv(rows)


_EXPLANATION = (
    "Differences are means over the images that both runs scored, the later run minus the first; intervals are 95 % "
    "paired bootstrap intervals over images. A verdict stands where the interval leaves out 0."
)


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.{_DIGITS}f}"
