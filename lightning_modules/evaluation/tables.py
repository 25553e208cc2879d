"""Tables of results: ours beside published figures of the same protocol, and all metrics, protocol by protocol."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from lightning_modules.command_line.tables import format_csv, format_latex, format_markdown, format_table
from lightning_modules.evaluation.scores import DatasetScores
from lightning_modules.metrics.benchmarks.choice import protocol_of, protocol_title
from lightning_modules.metrics.benchmarks.published import PUBLISHED

OURS = "this evaluation"
_MORE_IS_BETTER = ("delta", "share_under", "boundary_f1", "boundary_precision", "boundary_recall", "matte_recall")


class Table(NamedTuple):
    """Figures by dataset, of one protocol.

    Attributes:
        title: what they are; may be empty.
        rows: heading and cells.
    """

    title: str
    rows: list[list[str]]


def comparison_tables(headline: str, results: Sequence[DatasetScores]) -> list[Table]:
    """Return a table per metric and protocol of which there are published figures; the headline's stands first.

    Rows hold method, source and a figure per dataset: ours, then published ones of the same metric and protocol.

    Args:
        headline: the metric that stands first, with or without published figures.
        results: scores.
    """
    tables, has_headline = [], False
    for table in sorted(PUBLISHED, key=lambda table: table.metric != headline):
        ours = {result.name: result for result in results if table.metric in result.scores}
        published = [row for row in table.rows if row.figures.keys() & ours.keys()]
        if not published:
            continue
        names = list(ours)
        rows = [["method", "source", *names]]
        rows.append([OURS, "", *(number(ours[name].scores[table.metric] * table.factor, 2) for name in names)])
        for row in published:
            figures = (row.figures.get(name) for name in names)
            cells = ("" if each is None else f"{each:.{3 if abs(each) < 1 else 1}f}" for each in figures)
            rows.append([row.method, row.source, *cells])
        tables.append(Table(f"{table.heading}, {table.protocol}", rows))
        has_headline |= table.metric == headline
    if not has_headline:
        known = [result for result in results if headline in result.scores]
        rows = [["method", "source", *(result.name for result in known)]]
        rows.append([OURS, "", *(number(result.scores[headline], 4) for result in known)])
        if known:
            tables.insert(0, Table(f"{headline}, {protocol_title(headline)}", rows))
    return tables


def metric_rows(headline: str, results: Sequence[DatasetScores]) -> list[Table]:
    """Return tables of all metrics, one group per protocol, a column per dataset.

    Args:
        headline: the metric that stands first.
        results: scores.
    """
    names = list(dict.fromkeys(name for result in results for name in result.scores))
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: name != headline):
        groups.setdefault(protocol_of(name), []).append(name)
    found = []
    for protocol, members in groups.items():
        known = [result for result in results if any(name in result.scores for name in members)]
        rows = [["metric", *(result.name for result in known)]]
        rows += [
            [name, *(number(result.scores[name], 4) if name in result.scores else "" for result in known)]
            for name in members
        ]
        rows.append(["images", *(str(result.num_images) for result in known)])
        found.append(Table(protocol_title(members[0]) if protocol else "", rows))
    return found


def screen_table(headline: str, results: Sequence[DatasetScores]) -> str:
    """Return all metrics as aligned text, protocol by protocol, one column per dataset.

    Args:
        headline: the metric that stands first.
        results: scores.
    """
    parts = [
        f"{title}\n{format_table(rows)}" if title else format_table(rows)
        for title, rows in metric_rows(headline, results)
    ]
    return "\n\n".join(parts)


def markdown_tables(headline: str, results: Sequence[DatasetScores]) -> list[str]:
    """Return the parts of results.md that hold tables.

    Args:
        headline: the metric that stands first.
        results: scores.
    """
    parts = []
    for table in comparison_tables(headline, results):
        parts += [f"## {table.title}", format_markdown(table.rows)]
    for title, rows in metric_rows(headline, results):
        parts += [f"## All metrics{f', {title}' if title else ''}", format_markdown(rows)]
    return parts


def latex_tables(headline: str, results: Sequence[DatasetScores]) -> str:
    """Return the comparisons as LaTeX tables for the package booktabs; sources stand below each.

    Args:
        headline: the metric that stands first.
        results: scores.
    """
    parts = ["% needs \\usepackage{booktabs}"]
    for table in comparison_tables(headline, results):
        rows = [[row[0], *row[2:]] for row in table.rows]
        sources = dict.fromkeys(row[1] for row in table.rows[1:] if row[1])
        parts.append(format_latex(rows, f"{table.title}. Published figures: {'; '.join(sources) or 'none'}."))
    return "\n\n".join(parts) + "\n"


def csv_table(results: Sequence[DatasetScores]) -> str:
    """Return all figures as CSV: dataset, protocol, metric, value, images.

    Args:
        results: scores.
    """
    rows: list[list[object]] = [["dataset", "protocol", "metric", "value", "images"]]
    for result in results:
        for name, value in result.scores.items():
            cell = repr(value) if math.isfinite(value) else ""
            rows.append([result.name, protocol_of(name), name.rpartition("/")[2], cell, result.num_images])
    return format_csv(rows)


def more_is_better(metric: str) -> bool:
    """Say whether a larger value of a metric is the better one.

    Args:
        metric: its name in scores.
    """
    name = metric.rpartition("/")[2]
    return name.startswith((*_MORE_IS_BETTER, "ordinal_accuracy")) and not name.endswith("_error")


def number(value: float, digits: int) -> str:
    """Return a figure with so many digits behind the point, or a hyphen for what is no number."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
