"""The paper's claims, each judged by the measured numbers alone.

Convention:
    A difference counts if it exceeds the seed spread: the root of the summed variances of both sides over seeds. A side
    with a single seed takes the spread of the other; without any spread, nothing is decided. "As good as" means not
    worse by more than the spread.
"""

import math
from dataclasses import dataclass
from typing import Literal

from research.paper_in_miniature.tables import Measured

Verdict = Literal["reproduced", "within the seed spread", "not reproduced", "undecided: one seed"]


@dataclass(frozen=True)
class Claim:
    """A claim and what was measured.

    Attributes:
        text: the claim.
        verdict: whether it was reproduced.
        numbers: the numbers that say so.
    """

    text: str
    verdict: Verdict
    numbers: str


def better(text: str, first: Measured, second: Measured, digits: str) -> Claim:
    """Judge the claim that the first error is smaller than the second.

    Args:
        text: the claim.
        first: error that the claim calls smaller.
        second: error that the claim calls larger.
        digits: format of the numbers.
    """
    gain, spread = second.mean - first.mean, _spread(first, second)
    verdict: Verdict = "within the seed spread"
    if spread is None:
        verdict = "undecided: one seed"
    elif abs(gain) > spread:
        verdict = "reproduced" if gain > 0 else "not reproduced"
    return Claim(text, verdict, _numbers(first, second, digits))


def as_good(text: str, first: Measured, second: Measured, digits: str) -> Claim:
    """Judge the claim that the first error is not larger than the second.

    Args:
        text: the claim.
        first: error that the claim calls as small as the second.
        second: the other error.
        digits: format of the numbers.
    """
    spread = _spread(first, second)
    verdict: Verdict = "undecided: one seed"
    if spread is not None:
        verdict = "reproduced" if first.mean - second.mean <= spread else "not reproduced"
    return Claim(text, verdict, _numbers(first, second, digits))


def at_least(text: str, ratio: float, least: float) -> Claim:
    """Judge the claim that a ratio is at least so large.

    Args:
        text: the claim.
        ratio: what was measured.
        least: what the claim says.
    """
    return Claim(text, "reproduced" if ratio >= least else "not reproduced", f"{ratio:.0f} times")


def _spread(first: Measured, second: Measured) -> float | None:
    known = [side.spread for side in (first, second) if side.num_seeds > 1]
    return math.hypot(known[0], known[-1]) if known else None


def _numbers(first: Measured, second: Measured, digits: str) -> str:
    return f"{first:{digits}} against {second:{digits}}"
