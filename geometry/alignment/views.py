"""Depth of overlapping views from one point, each known up to a scale and a shift of its own, as one distance."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from geometry.parameterization import Parameterization

# By what power of the ray's length g(distance) differs from g(planar depth); the logarithm has it added.
_POWERS = {"linear": 1.0, "sqrt": 0.5, "log": 0.0, "disparity": -1.0, "sqrt_disparity": -0.5}
# Smallest scale and shift, where all views together have a mean of 1.
_FLOOR = 0.01
_ROUNDS = 10
# Relative difference of two views at which a pair of values counts half.
_TOLERANCE = 0.05


@dataclass(frozen=True)
class ViewFits:
    """A scale and a shift for each view, in the space of a parameterisation.

    Attributes:
        scales: (T,) float64, positive.
        shifts: (T,) float64.
        space: the parameterisation.
    """

    scales: Tensor
    shifts: Tensor
    space: Parameterization

    def distance(self, view: int, share: Tensor, length: Tensor) -> Tensor:
        """Return the distance along the ray, up to one scale for all views.

        Args:
            view: number of the view.
            share: float, of any shape: the way from the nearest to the farthest in the space, as the view has it.
            length: distance along the ray by planar depth, of the same shape.
        """
        value = self.scales[view] * self.space.rising(share.double()) + self.shifts[view]
        if self.space.name == "log":
            value = value + length.log()
        return self.space.scale_free().undo(value * length ** _POWERS[self.space.name])


def fit_views(share: Tensor, length: Tensor, weight: Tensor, space: Parameterization) -> ViewFits:
    """Return the scales and shifts with which views agree best on the distance along rays that several of them see.

    Convention:
        A view i has g(planar depth) = a_i s_i + b_i. Planar depth differs from view to view, the distance r along a ray
        does not, and r is planar depth times the ray's length. For linear depth, r = length x (a_i s_i + b_i); so what
        is sought is linear in every parameterisation. Views that overlap settle the shifts, too, since a shift is no
        shift of r: what is left unknown is one scale. It is chosen so that the mean of all views is 1 (0 for log).
        Robust: pairs count less the more they differ. Scales, and shifts where g must be positive, are at least 0.01.

    Args:
        share: (T,N) float64 in [0, 1], from the nearest (0) to the farthest in g, per view and ray.
        length: (T,N) float64, length of the ray where planar depth is 1.
        weight: (T,N) float64, how much a view counts at a ray; 0 where it does not see it.
        space: the parameterisation g.
    """
    num_views, is_log = len(share), space.name == "log"
    values = space.rising(share)
    factor = length ** _POWERS[space.name]
    added = length.log() if is_log else torch.zeros_like(length)
    first, second = torch.triu_indices(num_views, num_views, offset=1).unbind()
    pair_weight = weight[first] * weight[second]
    pair, ray = pair_weight.nonzero(as_tuple=True)
    counts, i, j = pair_weight[pair, ray], first[pair], second[pair]

    rows = torch.zeros(len(pair), 2 * num_views, dtype=torch.float64)
    number = torch.arange(len(pair))
    for view, sign in ((i, 1.0), (j, -1.0)):
        rows[number, view] = sign * factor[view, ray] * values[view, ray]
        rows[number, num_views + view] = sign * factor[view, ray]
    wanted = added[j, ray] - added[i, ray]

    # The mean of what the views say where they look: a view of a flat wall may have any scale.
    seen = weight / weight.sum(dim=1, keepdim=True)
    gauge = torch.cat([(seen * values).sum(dim=1), values.new_ones(num_views)]) / num_views
    lowest = values.new_full((2 * num_views,), _FLOOR)
    if is_log:
        lowest[num_views:] = -math.inf
    found = _solve(rows, wanted, counts, gauge, 0.0 if is_log else 1.0, lowest)
    for _ in range(_ROUNDS):
        level = 1.0 if is_log else (rows.abs() @ found / 2).clamp(min=_FLOOR)
        error = (rows @ found - wanted) / level
        found = _solve(
            rows, wanted, counts / level**2 / (1 + (error / _TOLERANCE) ** 2), gauge, 0.0 if is_log else 1.0, lowest
        )
    return ViewFits(found[:num_views], found[num_views:], space)


def _solve(rows: Tensor, wanted: Tensor, weight: Tensor, gauge: Tensor, mean: float, lowest: Tensor) -> Tensor:
    """Return x that minimises the weighted squares of rows x - wanted, with gauge x = mean and no x below its lowest.

    What falls below is held there, and the others are sought again.
    """
    weighted = rows * (weight / weight.mean())[:, None]
    square, linear = weighted.T @ rows, weighted.T @ wanted
    found, held = torch.zeros_like(gauge), torch.zeros_like(gauge, dtype=torch.bool)
    while True:
        free = ~held
        fixed = torch.where(held, lowest, 0.0)
        count = int(free.sum())
        system = torch.zeros(count + 1, count + 1, dtype=rows.dtype)
        system[:count, :count] = square[free][:, free] / square.diagonal().mean()
        system[:count, count] = system[count, :count] = gauge[free]
        right = torch.cat([(linear - square @ fixed)[free] / square.diagonal().mean(), (mean - gauge @ fixed)[None]])
        found = fixed.clone()
        found[free] = torch.linalg.lstsq(system, right[:, None], driver="gelsd").solution[:count, 0]
        below = free & (found < lowest)
        if not below.any() or int((free & ~below).sum()) < 2:
            return found.clamp(min=lowest)
        held |= below
