"""Predictions of successive frames, each known up to a scale and a shift of its own, brought to one of both."""

from collections import deque

import torch
from torch import Tensor

_FITTED_PIXELS = 5_000
# A frame is fitted to the share of pixels that agree best: what moves is left out.
_KEPT_SHARE = 0.7
# Then all are taken whose residual is no larger than so many standard deviations of a normal distribution.
_BELIEVED_DEVIATIONS, _DEVIATION_PER_MEDIAN = 3.0, 1.4826
_NUM_STARTS = 20
_MOST_STEPS = 30
_CONSTANT_SPAN = 4 * torch.finfo(torch.float32).eps


class FrameAligner:
    """Finds the scale and shift of each frame that fit it to those before it.

    Convention:
        A frame is fitted to each of the last ``window`` frames after their own alignment, and the median of these fits
        is taken, so windows of successive frames overlap in all but one frame. The first frame stays as it is. A scale
        is the ratio of the deviations of two frames. The slope of least squares, or a fit to the mean of the window,
        would shrink with any noise, and over many frames to nothing. Frames that are the same but for scale and shift
        are equal afterwards. What really grows, comes nearer or goes away in more than 30 % of the pixels is taken for
        a change of scale or shift, and errors of single fits add up over a long video.

    Args:
        window: how many frames before it a frame is aligned to.
    """

    def __init__(self, window: int = 10) -> None:
        self._before: deque[Tensor] = deque(maxlen=window)

    def fit(self, prediction: Tensor) -> tuple[float, float]:
        """Return the scale and shift of the next frame, and remember it with these.

        Args:
            prediction: float of any shape, the same for all frames.
        """
        values = prediction.flatten()
        values = values[:: len(values) // _FITTED_PIXELS + 1].double()
        scale, shift = 1.0, 0.0
        if self._before:
            fits = values.new_tensor([fit_symmetric(values, other) for other in self._before])
            low, high = float(values.min()), float(values.max())
            ends = [float((fits[:, 0] * end + fits[:, 1]).quantile(0.5)) for end in (low, high)]
            scale = (ends[1] - ends[0]) / (high - low) if high > low else 1.0
            shift = ends[0] - scale * low
        self._before.append(scale * values + shift)
        return scale, shift


def fit_symmetric(x: Tensor, y: Tensor, kept_share: float = _KEPT_SHARE) -> tuple[float, float]:
    """Return the scale and shift that bring values to others by mean and deviation of the pairs that agree best.

    Convention:
        The scale is positive: 1 where a deviation is 0. x = 0, 1, 2, 3, 9 and y = 1, 3, 5, 7, 0 give scale 2, shift 1.

    Args:
        x: (N,) float64.
        y: (N,) float64.
        kept_share: share of the pairs that the fit rests on.

    Source:
        Reweighted least trimmed squares by concentration steps (Rousseeuw and Van Driessen, 2006). Deviation: mean and
        deviation in place of least squares.
    """
    count = max(2, round(kept_share * len(x)))
    starts = [_by_quartiles(x, y), *_through_pairs(x, y)]
    scale, shift = min(starts, key=lambda line: float((line[0] * x + line[1] - y).abs().kthvalue(count).values))
    kept = torch.empty(0, dtype=torch.long)
    for _ in range(_MOST_STEPS):
        found = (scale * x + shift - y).abs().argsort(stable=True)[:count].sort().values
        if torch.equal(found, kept):
            break
        kept = found
        scale, shift = _symmetric_line(x[kept], y[kept])
    residual = (scale * x + shift - y).abs()
    limit = torch.maximum(_BELIEVED_DEVIATIONS * _DEVIATION_PER_MEDIAN * residual.median(), residual[kept].max())
    return _symmetric_line(x[residual <= limit], y[residual <= limit])


def _symmetric_line(x: Tensor, y: Tensor) -> tuple[float, float]:
    deviation_x, deviation_y = _deviation(x), _deviation(y)
    scale = float(deviation_y / deviation_x) if deviation_x > 0 and deviation_y > 0 else 1.0
    return scale, float(y.mean() - scale * x.mean())


def _by_quartiles(x: Tensor, y: Tensor) -> tuple[float, float]:
    quartiles = x.new_tensor([0.25, 0.5, 0.75])
    (low_x, middle_x, high_x), (low_y, middle_y, high_y) = (torch.quantile(v, quartiles).tolist() for v in (x, y))
    scale = (high_y - low_y) / (high_x - low_x) if high_x > low_x and high_y > low_y else 1.0
    return scale, middle_y - scale * middle_x


def _through_pairs(x: Tensor, y: Tensor) -> list[tuple[float, float]]:
    """Return rising lines through drawn pairs; the draws depend on the number of values alone."""
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(len(x), (2, _NUM_STARTS), generator=generator)
    run, rise = x[second] - x[first], y[second] - y[first]
    is_rising = run * rise > 0
    scale = rise[is_rising] / run[is_rising]
    return list(zip(scale.tolist(), (y[first][is_rising] - scale * x[first][is_rising]).tolist(), strict=True))


def _deviation(values: Tensor) -> Tensor:
    """Return the standard deviation, 0 for what is one constant up to rounding."""
    is_constant = values.amax() - values.amin() <= _CONSTANT_SPAN * values.abs().amax()
    return torch.where(is_constant, 0.0, values.std(correction=0))
