"""Predictions of successive frames, each known up to a scale and a shift of its own, brought to one of both."""

from collections import deque

import torch
from torch import Tensor

_FITTED_PIXELS = 20_000
# A frame is fitted to the share of pixels that agree best: what moves is left out.
_KEPT_SHARE = 0.7
_MOST_STEPS = 30


class FrameAligner:
    """Finds the scale and shift of each frame that fit it to those before it.

    Convention:
        A frame is fitted to the pixelwise median of the last ``window`` frames after their own alignment, so windows of
        successive frames overlap in all but one frame. The first frame stays as it is. The scale is the ratio of
        the deviations, not the slope of least squares: that shrinks with any noise, and over many frames to nothing.
        Frames that are the same but for scale and shift are equal afterwards. What really grows, comes nearer or goes
        away in more than 30 % of the pixels is taken for a change of scale or shift.

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
            scale, shift = fit_symmetric(values, torch.stack(list(self._before)).median(dim=0).values)
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
    """
    quartiles = x.new_tensor([0.25, 0.5, 0.75])
    (low_x, middle_x, high_x), (low_y, middle_y, high_y) = torch.quantile(x, quartiles), torch.quantile(y, quartiles)
    scale = (high_y - low_y) / (high_x - low_x) if high_x > low_x and high_y > low_y else x.new_tensor(1.0)
    shift = middle_y - scale * middle_x
    count = max(2, round(kept_share * len(x)))
    kept = torch.empty(0, dtype=torch.long)
    for _ in range(_MOST_STEPS):
        found = (scale * x + shift - y).abs().argsort(stable=True)[:count].sort().values
        if torch.equal(found, kept):
            break
        kept = found
        deviation_x, deviation_y = x[kept].std(correction=0), y[kept].std(correction=0)
        scale = deviation_y / deviation_x if deviation_x > 0 and deviation_y > 0 else x.new_tensor(1.0)
        shift = y[kept].mean() - scale * x[kept].mean()
    return float(scale), float(shift)
