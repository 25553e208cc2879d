"""A line through points of which many are wrong: scale and shift by random sample consensus (RANSAC)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.medians import median

_SMALLEST = 2.0**-52


@dataclass(frozen=True)
class RobustFit:
    """A scale and a shift, and the pairs of values that they rest on.

    Attributes:
        scale: scalar float64.
        shift: scalar float64.
        inliers: (N,) bool.
    """

    scale: Tensor
    shift: Tensor
    inliers: Tensor


def fit_ransac(
    prediction: Tensor,
    target: Tensor,
    threshold: float | None = None,
    measure: Callable[[Tensor], Tensor] | None = None,
    bounds: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    max_trials: int = 1000,
    stop_probability: float = 0.99,
    seed: int = 0,
) -> RobustFit | None:
    """Return the scale and shift that most pairs agree with, fitted by least squares to those.

    Convention:
        A trial takes two pairs and the line through them. Its inliers lie closer to it than the threshold. The
        trial with the most inliers wins; among equals that with the higher coefficient of determination on its
        inliers, and the later of two that are equal in that, too. Trials end when the best share of inliers makes it
        as improbable as ``1 - stop_probability`` that no trial was free of outliers. All in float64.
        With predictions 0, 1, 2, 3 and targets 1, 3, 5, 70, a threshold of 0.1 gives scale 2 and shift 1.

    Args:
        prediction: (N,) float, finite.
        target: (N,) float, finite.
        threshold: largest distance of an inlier; None is the median absolute deviation of the measured targets.
        measure: maps values to those in which distances are taken; None takes them as they are.
        bounds: needed beside ``measure``: returns the smallest and the largest values whose measure lies between two
            others.
        max_trials: most trials.
        stop_probability: how sure it must be that a trial was free of outliers.
        seed: the draws depend on it and on N alone: not on the device, the rank or what was drawn before.

    Returns:
        None with fewer than two pairs, or if no trial has an inlier.

    Source:
        Fischler and Bolles, 1981, in the form of scikit-learn's RANSACRegressor at its defaults, which the evaluation
        of Pixel-Perfect Depth takes (gangweix/pixel-perfect-depth). Deviation: seeded, and float64.
    """
    x, y = prediction.double(), target.double()
    count = len(x)
    if count < 2:
        return None
    measured = y if measure is None else measure(y)
    low, high = _range_of_inliers(measured, threshold, bounds)
    best, best_count, best_score = None, 1, -math.inf
    trials = float(max_trials)
    for trial, line in enumerate(_lines(x, y, seed)):
        if trial >= trials:
            break
        inliers = (line >= low) & (line <= high)
        num_inliers = int(inliers.sum())
        if num_inliers < best_count:
            continue
        estimated = line[inliers] if measure is None else measure(line[inliers])
        score = _determination(measured[inliers], estimated)
        if num_inliers == best_count and score < best_score:
            continue
        best, best_count, best_score = inliers, num_inliers, score
        trials = min(trials, _trials_needed(num_inliers / count, stop_probability))
    return None if best is None else RobustFit(*fit_line(x[best], y[best]), best)


def _range_of_inliers(
    measured: Tensor, threshold: float | None, bounds: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
) -> tuple[Tensor, Tensor]:
    """Return the smallest and the largest value (N,) with which a line agrees with each target."""
    limit = median((measured - median(measured)).abs()) if threshold is None else measured.new_tensor(threshold)
    low, high = measured - limit, measured + limit
    return (low, high) if bounds is None else bounds(low, high)


def _lines(x: Tensor, y: Tensor, seed: int) -> Iterator[Tensor]:
    """Yield without end the values of lines through two drawn pairs each."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        pair = torch.tensor(_draw_pair(len(x), generator), device=x.device)
        scale, shift = fit_line(x[pair], y[pair])
        yield x * scale + shift


def fit_line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift by least squares; of a constant ``x``, scale 0 and the mean of ``y``.

    Args:
        x: (N,) float64.
        y: (N,) float64.
    """
    mean_x, mean_y = x.mean(), y.mean()
    centred = x - mean_x
    variance = centred.square().sum()
    scale = torch.where(variance > 0, (centred * (y - mean_y)).sum() / variance.clamp(min=1e-300), 0.0)
    return scale, mean_y - scale * mean_x


def _draw_pair(count: int, generator: torch.Generator) -> tuple[int, int]:
    """Return two different numbers below ``count``."""
    first = int(torch.randint(count, (), generator=generator))
    second = int(torch.randint(count - 1, (), generator=generator))
    return first, second + (second >= first)


def _determination(target: Tensor, estimated: Tensor) -> float:
    """Return the coefficient of determination; not a number for fewer than two values."""
    if len(target) < 2:
        return math.nan
    error = float((target - estimated).square().sum())
    spread = float((target - target.mean()).square().sum())
    return 1 - error / spread if spread > 0 else float(error == 0)


def _trials_needed(inlier_share: float, probability: float) -> float:
    doubt = max(_SMALLEST, 1 - probability)
    spoiled = max(_SMALLEST, 1 - inlier_share**2)
    return math.inf if spoiled == 1 else abs(math.ceil(math.log(doubt) / math.log(spoiled)))
