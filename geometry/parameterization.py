"""Functions of depth that a network can learn in place of depth itself, and the way back."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from geometry.alignment import align_scale_shift
from geometry.batch import Target
from geometry.errors import InputError, check_choice

ParameterizationName = Literal["linear", "log", "sqrt", "disparity", "sqrt_disparity"]

# What a fit puts beyond this distance, or behind the camera, counts as this far: a disparity of 0 has no depth.
FARTHEST_M = 1000.0
_NAMES: tuple[str, ...] = get_args(ParameterizationName)


class Parameterization:
    """A monotone function g of depth. Networks predict g(depth) up to a scale and a shift per image.

    Convention:
        With depth D in metres and a small eps, g is D for ``linear``, ln(D + eps) for ``log``, the square root of D for
        ``sqrt``, 1 / (D + eps) for ``disparity`` and its square root for ``sqrt_disparity``. The last two fall with
        depth: what is near is large. At eps 0, a depth of 4 m has the values 4, 1.386, 2, 0.25 and 0.5.
        Of a logarithm, a scale and a shift are a power and a factor of depth. So what is known of a prediction is no
        longer depth up to scale and shift, and a fit to the truth has its two numbers in the space of g.

    Args:
        name: linear, log, sqrt, disparity or sqrt_disparity.
        eps_m: added to depth before a logarithm or an inverse, in metres.

    Raises:
        InputError: there is no such function, or eps_m is negative.
    """

    def __init__(self, name: ParameterizationName = "linear", eps_m: float = 1e-6) -> None:
        check_choice("parameterization", name, _NAMES)
        if not 0 <= eps_m < math.inf:
            raise InputError(f"a parameterization needs a finite eps_m of at least 0, got {eps_m}.")
        self.name: ParameterizationName = name
        self.eps_m = eps_m

    @property
    def is_linear(self) -> bool:
        """Whether it is depth itself, so that nothing has to be undone."""
        return self.name == "linear"

    @property
    def falls(self) -> bool:
        """Whether what is near has the larger value."""
        return self.name in ("disparity", "sqrt_disparity")

    def apply(self, depth: Tensor) -> Tensor:
        """Return g(depth), differentiable.

        Args:
            depth: positive, in metres, of any shape.
        """
        if self.name == "log":
            return (depth + self.eps_m).log()
        if self.name == "sqrt":
            return depth.sqrt()
        if self.falls:
            inverse = 1 / (depth + self.eps_m)
            return inverse if self.name == "disparity" else inverse.sqrt()
        return depth

    def undo(self, values: Tensor) -> Tensor:
        """Return depth in metres, differentiable, at most ``FARTHEST_M``; linear values come back as they are.

        Args:
            values: g(depth) or an estimate of it, of any shape. A negative root or inverse counts as the limit, 0 or
                ``FARTHEST_M``.
        """
        if self.is_linear:
            return values
        low, high = sorted(float(self.apply(torch.tensor(end, dtype=torch.float64))) for end in (0.0, FARTHEST_M))
        if self.falls:  # a depth of 0 may have no finite inverse
            values = values.clamp(min=low)
            inverse = values if self.name == "disparity" else values.square()
            return (1 / inverse - self.eps_m).clamp(min=0)
        if self.name == "log":
            return (values.clamp(max=high).exp() - self.eps_m).clamp(min=0)
        return values.clamp(low, high).square()

    def of_target(self, target: Target) -> Target:
        """Return g of the truth, 0 where it is unknown; a linear one comes back as it is.

        Args:
            target: depth in metres.
        """
        if self.is_linear:
            return target
        known = torch.where(target.mask, target.values, 1.0)
        return Target(torch.where(target.mask, self.apply(known), 0.0), target.mask)

    def align(self, prediction: Tensor, target: Target) -> Tensor:
        """Return a prediction as depth in metres, after the scale and shift per image that fit g of the truth best.

        Args:
            prediction: (B,1,H,W) float, g(depth) up to scale and shift.
            target: depth in metres.
        """
        scale, shift = align_scale_shift(prediction, *self.of_target(target))
        return self.undo(scale[:, None, None, None] * prediction + shift[:, None, None, None])

    def rising(self, share: Tensor) -> Tensor:
        """Return the share of the way that grows with g, for one that grows with distance; or the other way about.

        Args:
            share: in [0, 1], of any shape.
        """
        return 1 - share if self.falls else share

    def to_relative(self, share: Tensor, far_over_near: float) -> Tensor:
        """Return relative depth, 0 for the nearest and 1 for the farthest, from the share of the way between in g.

        Args:
            share: in [0, 1]: (g(D) - g(near)) / (g(far) - g(near)).
            far_over_near: how many times as far the farthest is as the nearest; larger than 1. Linear depth does not
                depend on it.
        """
        if self.is_linear:
            return share
        near, far = self._ends(far_over_near)
        return ((self.scale_free().undo(near + share * (far - near)) - 1) / (far_over_near - 1)).clamp(0, 1)

    def to_share(self, relative: Tensor, far_over_near: float) -> Tensor:
        """Return the inverse of ``to_relative``.

        Args:
            relative: depth in [0, 1].
            far_over_near: what ``to_relative`` was given.
        """
        if self.is_linear:
            return relative
        near, far = self._ends(far_over_near)
        return ((self.scale_free().apply(1 + relative * (far_over_near - 1)) - near) / (far - near)).clamp(0, 1)

    def _ends(self, far_over_near: float) -> tuple[float, float]:
        """Return g of depths of 1 and of ``far_over_near``."""
        ends = self.scale_free().apply(torch.tensor([1.0, far_over_near], dtype=torch.float64)).tolist()
        return ends[0], ends[1]

    def scale_free(self) -> "Parameterization":
        """Return the same function with an eps of 0: where units do not count, eps does not either."""
        return Parameterization(self.name, 0.0)
