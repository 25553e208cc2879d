"""Weights of losses that change with the steps of a run."""

import itertools

from torch import Tensor, nn

from geometry.batch import Target
from geometry.errors import InputError
from lightning_modules.losses.base import Aligned, Loss, LossInputs


class Scheduled(Loss):
    """A loss whose weight is multiplied by a factor that follows the optimiser steps, linearly between given points.

    The step is the run's own, over all of its starts: A run that is resumed goes on with the weights of an undisturbed
    one. The loss is computed even where its factor is 0.

    Args:
        loss: The loss; its own weight is multiplied by the factor.
        steps: Optimiser steps at which factors are given, in rising order. Before the first and after the last one, the
            factor stays.
        factors: One factor per step, from 0 on.

    Raises:
        InputError: The points make no curve.
    """

    def __init__(self, loss: Loss, steps: list[int], factors: list[float]) -> None:
        super().__init__(loss.weight)
        rising = all(before < after for before, after in itertools.pairwise(steps))
        if not steps or len(steps) != len(factors) or not rising or steps[0] < 0 or min(factors) < 0:
            raise InputError(
                f"Scheduled needs rising steps and one factor from 0 on for each, got {steps} and {factors}."
            )
        self.loss = loss
        self.steps, self.factors = steps, factors

    @property
    def name(self) -> str:  # type: ignore[override]
        """Name of the loss."""
        return self.loss.name

    def weight_at(self, step: int) -> float:
        """Return the weight at an optimiser step."""
        return self.loss.weight_at(step) * self._factor_at(step)

    def _factor_at(self, step: int) -> float:
        points = list(zip(self.steps, self.factors, strict=True))
        if step <= self.steps[0]:
            return self.factors[0]
        for (before, low), (after, high) in itertools.pairwise(points):
            if step <= after:
                return low + (high - low) * (step - before) / (after - before)
        return self.factors[-1]

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the loss, without any weight."""
        return self.loss(prediction, target, valid_mask)

    def of(self, inputs: LossInputs) -> Tensor:
        """Return the loss, without any weight."""
        return self.loss.of(inputs)

    def attach(self, network: nn.Module) -> None:
        """Prepare the loss."""
        self.loss.attach(network)

    def align(self, prediction: Tensor, target: Target) -> Aligned:
        """Return prediction and truth as the loss compares them."""
        return self.loss.align(prediction, target)

    def align_inputs(self, inputs: LossInputs) -> Aligned:
        """Return prediction and truth as the loss compares them."""
        return self.loss.align_inputs(inputs)

    def remarks(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Return what the loss remarks, and the weight that it has at this step."""
        weight = inputs.prediction.new_full((), self.weight_at(inputs.step))
        return {**self.loss.remarks(inputs), f"{self.name}_weight": weight}
