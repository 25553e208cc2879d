"""The paper's claims, each judged by the measured numbers alone.

Convention:
    A difference counts if it exceeds the spread, the root of the summed variances of the two over seeds. "As good
    as" means not worse by more than the spread.
"""

import math
from dataclasses import dataclass
from typing import Literal

from benchmarks.paper_in_miniature.tables import Measured

Verdict = Literal["reproduced", "within the seed spread", "not reproduced"]


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


def better(text: str, first: Measured, second: Measured, unit: str = ".4f") -> Claim:
    """Judge the claim that the first error is smaller than the second.

    Args:
        text: the claim.
        first: error that the claim calls smaller.
        second: error that the claim calls larger.
        unit: format of the numbers.
    """
    spread = math.hypot(first.spread, second.spread)
    gain = second.mean - first.mean
    verdict: Verdict = (
        "reproduced" if gain > spread else "not reproduced" if -gain > spread else "within the seed spread"
    )
    return Claim(text, verdict, f"{first:{unit}} against {second:{unit}}")


def as_good(text: str, first: Measured, second: Measured, unit: str = ".4f") -> Claim:
    """Judge the claim that the first error is not larger than the second.

    Args:
        text: the claim.
        first: error that the claim calls as small as the second.
        second: the other error.
        unit: format of the numbers.
    """
    spread = math.hypot(first.spread, second.spread)
    verdict: Verdict = "reproduced" if first.mean - second.mean <= spread else "not reproduced"
    return Claim(text, verdict, f"{first:{unit}} against {second:{unit}}")


def at_least(text: str, ratio: float, least: float) -> Claim:
    """Judge the claim that a ratio is at least so large.

    Args:
        text: the claim.
        ratio: what was measured.
        least: what the claim says.
    """
    return Claim(text, "reproduced" if ratio >= least else "not reproduced", f"{ratio:.0f} times")
