"""Tables for the terminal, and as Markdown, LaTeX and CSV."""

import csv
import io
from collections.abc import Iterable, Sequence


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text; the first is the heading, the first column is aligned left.

    Args:
        rows: cells, equally many in each row.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table; the first is the heading.

    Args:
        rows: cells, equally many in each row.
    """
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
    return "\n".join(lines)


def format_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV; the first is the heading.

    Args:
        rows: cells, equally many in each row.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def format_latex(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return rows as a LaTeX table for the package booktabs; the first is the heading.

    Args:
        rows: cells, equally many in each row.
        caption: text above the table.
    """
    cells = [" & ".join(map(_escape, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
            r"\toprule",
            cells[0],
            r"\midrule",
            *cells[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _escape(text: str) -> str:
    """Return text in which nothing means anything to LaTeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
