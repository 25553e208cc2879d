"""Spaces in which a prediction of depth can be known up to scale and shift."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from geometry.errors import InputError

SpaceName = Literal["linear", "log", "sqrt", "disparity", "sqrt_disparity"]


@dataclass(frozen=True)
class DepthSpace:
    """A function of depth that a network predicts up to scale and shift.

    Convention:
        ``linear`` is the depth D itself, ``log`` ln(D + eps), ``sqrt`` the square root of D, ``disparity``
        1 / (D + eps) and ``sqrt_disparity`` its square root. At eps 0, 4 m is 4, 1.386, 2, 0.25 and 0.5.

    Attributes:
        name: the function.
        eps_m: added before a logarithm or an inverse, in metres; ``log`` with 1 is ln(D + 1).

    Raises:
        InputError: there is no such function, or eps_m is negative.
    """

    name: SpaceName = "linear"
    eps_m: float = 1e-6

    def __post_init__(self) -> None:
        if self.name not in get_args(SpaceName) or not 0 <= self.eps_m < math.inf:
            choice = ", ".join(get_args(SpaceName))
            raise InputError(f"a space of depth is one of {choice}, with eps_m of at least 0, not {self}.")

    def apply(self, depth: Tensor) -> Tensor:
        """Return depth as values of the space.

        Args:
            depth: any shape, metres, positive.
        """
        if self.name == "linear":
            return depth
        if self.name == "log":
            return (depth + self.eps_m).log()
        if self.name == "sqrt":
            return depth.sqrt()
        inverse = 1 / (depth + self.eps_m)
        return inverse if self.name == "disparity" else inverse.sqrt()

    def undo(self, values: Tensor) -> Tensor:
        """Return the depth that values stand for, the inverse of ``apply``.

        Convention:
            Values that no depth has count as the nearest that one has: a negative root is 0 m, a negative disparity
            infinitely far. Depth of a linear space may be negative.

        Args:
            values: any shape.
        """
        if self.name == "linear":
            return values
        if self.name == "log":
            return (values.exp() - self.eps_m).clamp(min=0)
        values = values.clamp(min=0)
        if self.name == "sqrt":
            return values.square()
        return (1 / (values if self.name == "disparity" else values.square()) - self.eps_m).clamp(min=0)


def median(values: Tensor) -> Tensor:
    """Return the median of (N,) values, the mean of the two in the middle of an even number; NaN of none.

    Args:
        values: (N,) float.
    """
    if len(values) == 0:
        return values.new_full((), torch.nan)
    ordered = values.sort().values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
