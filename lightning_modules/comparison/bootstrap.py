"""How sure the mean of paired differences is: percentile bootstrap over images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES_AT_A_TIME_VALUES = 2_000_000


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two runs on the same images.

    Attributes:
        mean: mean over images of second minus first.
        low: lower end of the interval of the mean; NaN with fewer than two images.
        high: upper end.
        num_images: images that both have a finite value of.
    """

    mean: float
    low: float
    high: float
    num_images: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def paired_difference(
    first: Sequence[float], second: Sequence[float], num_resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> PairedDifference:
    """Return the mean difference of paired values and its bootstrap interval.

    Convention:
        Images are drawn with replacement, as many as there are, and both runs keep their values of a drawn image: what
        makes an image hard for both cancels. The interval holds the middle ``level`` of the means of all resamples.
        It says how the choice of images moves the mean, not how another training would.

    Args:
        first: values of the first run by image.
        second: values of the second run, in the same order. Pairs with a value that is not finite do not count.
        num_resamples: number of resamples.
        level: share of resamples inside the interval.
        seed: of the draws.

    Source:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, percentile interval.
    """
    differences = np.asarray(second, float) - np.asarray(first, float)
    differences = differences[np.isfinite(differences)]
    count = len(differences)
    if count < 2:
        return PairedDifference(float(differences.mean()) if count else np.nan, np.nan, np.nan, count)
    generator = np.random.default_rng(seed)
    means, step = [], max(1, _RESAMPLES_AT_A_TIME_VALUES // count)
    for done in range(0, num_resamples, step):
        drawn = generator.integers(count, size=(min(step, num_resamples - done), count))
        means.append(differences[drawn].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return PairedDifference(float(differences.mean()), float(low), float(high), count)
