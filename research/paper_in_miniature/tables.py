"""Tables of means and spreads, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Measured:
    """A metric over seeds.

    Attributes:
        mean: mean over the seeds.
        spread: standard deviation over the seeds, with n - 1; 0 for a single seed.
        num_seeds: how many there are.
    """

    mean: float
    spread: float
    num_seeds: int

    def __format__(self, digits: str) -> str:
        """Write mean and spread with a number's format, for instance ``.4f``; without spread for one seed."""
        mean = format(self.mean, digits)
        return f"{mean} ± {format(self.spread, digits)}" if self.num_seeds > 1 else f"{mean} (one seed)"


def measured(scores: Sequence[dict[str, float]], metric: str) -> Measured:
    """Return mean and spread of a metric.

    Args:
        scores: metrics, one dictionary per seed.
        metric: name of the metric.
    """
    values = [each[metric] for each in scores]
    return Measured(fmean(values), stdev(values) if len(values) > 1 else 0.0, len(values))


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table.

    Args:
        header: names of the columns.
        lines: cells of the lines.
    """
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
