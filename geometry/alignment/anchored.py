"""Metres for relative depth, from a few pixels whose depth is known: a fit that wrong ones do not spoil."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.alignment.ransac import fit_line, fit_ransac
from geometry.errors import InputError
from geometry.parameterization import Parameterization

_MIN_DEPTH_M = 1e-6
_MOST_REFINEMENTS = 20


@dataclass(frozen=True)
class AnchoredFit:
    """The way from a prediction to metres, and the anchors that it rests on.

    Attributes:
        scale: scalar float64.
        shift: scalar float64.
        space: the space in which ``scale * prediction + shift`` is depth.
        used: (N,) bool, the anchors that agree with it.
    """

    scale: Tensor
    shift: Tensor
    space: Parameterization
    used: Tensor

    def __call__(self, prediction: Tensor) -> Tensor:
        """Return depth in metres, float64, at least 1e-6, of the prediction's shape."""
        return self.space.undo(self.scale * prediction.double() + self.shift).clamp(min=_MIN_DEPTH_M)


def fit_anchors(
    prediction: Tensor, depth_m: Tensor, space: Parameterization, tolerance: float = 0.1, seed: int = 0
) -> AnchoredFit:
    """Return the scale and shift, in the space of a parameterisation, that most anchors agree with.

    Convention:
        An anchor agrees where the fitted depth is within ``1 + tolerance`` times the known one, either way. Random
        sample consensus finds the largest group that agrees; least squares in ``space`` over the group, and the group
        anew, are repeated until nothing changes. For logarithmic depth the two numbers are a power and a factor of
        depth. Predictions 0, 0.5, 1 and anchors at 1, 2, 3 m give depth = 2 * prediction + 1; a fourth anchor of 50 m
        would be left out.

    Args:
        prediction: (N,) float, up to scale and shift in ``space``, larger for what is farther.
        depth_m: (N,) float, positive, in metres.
        space: where scale and shift apply.
        tolerance: largest relative error of an anchor that is believed.
        seed: of the draws.

    Raises:
        InputError: there are fewer than two anchors, all lie at one predicted depth, no two agree, or they say that
            what is predicted to be near is far.
    """
    x, depth = prediction.double(), depth_m.double()
    if len(x) < 2 or not float(x.max() - x.min()) > 0:
        raise InputError("scale and shift need two anchors at least, at places of different predicted depth.")
    y, limit = space.apply(depth), math.log1p(tolerance)

    def logarithm(values: Tensor) -> Tensor:
        return space.undo(values).clamp(min=_MIN_DEPTH_M).log()

    def bounds(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        ends = space.apply(low.exp()), space.apply(high.exp())
        return torch.minimum(*ends), torch.maximum(*ends)

    found = fit_ransac(x, y, limit, logarithm, bounds, seed=seed)
    if found is None or int(found.inliers.sum()) < 2:
        raise InputError("no two anchors agree with the prediction; see their pixels and metres.")
    scale, shift, used = found.scale, found.shift, found.inliers
    for _ in range(_MOST_REFINEMENTS):
        agreeing = (logarithm(scale * x + shift) - depth.log()).abs() <= limit
        if int(agreeing.sum()) < 2 or torch.equal(agreeing, used):
            break
        used = agreeing
        scale, shift = fit_line(x[used], y[used])
    if bool(scale == 0) or bool(scale > 0) == space.falls:
        raise InputError("the anchors contradict the prediction: what they say is far is predicted to be near.")
    return AnchoredFit(scale, shift, space, used)
