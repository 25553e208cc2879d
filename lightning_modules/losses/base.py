"""What a loss is, and what it may see: prediction, truth, image, camera and data set."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from geometry.batch import GeometryBatch, Target
from geometry.errors import InputError
from geometry.modalities import Modality


class Aligned(NamedTuple):
    """A prediction beside the truth, both as a loss compares them.

    Attributes:
        prediction: (B,C,H,W) float, with its graph; depth is scaled and shifted, in float64.
        target: (B,C,H,W) float, in the same units; clamped or normalised where the loss does so.
        mask: (B,1,H,W) bool, the pixels that count.
        scale: (B,) float64, detached: the fitted scale of each image, NaN where undefined; None where none is fitted.
    """

    prediction: Tensor
    target: Tensor
    mask: Tensor
    scale: Tensor | None = None


class Loss(nn.Module, ABC):
    """A term of a training loss, called with a prediction, the truth and a mask.

    Subclasses that want to see more than that (the image, the camera, another modality) replace ``of``.

    Args:
        weight: Factor on the term before it is added.

    Attributes:
        name: name under which the term, without its weight, is logged.
    """

    name: ClassVar[str]

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= weight < float("inf"):
            raise InputError(f"the weight of {type(self).__name__} must be a number from 0 on, got {weight}.")
        self.weight = weight

    @abstractmethod
    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the term as a scalar.

        Args:
            prediction: (B,C,H,W) float.
            target: (B,C,H,W) float, in the units of the prediction.
            valid_mask: (B,1,H,W) bool.
        """

    def of(self, inputs: "LossInputs") -> Tensor:
        """Return the term for all that a loss may see; by default that of the aligned prediction.

        Args:
            inputs: prediction, truth and batch.
        """
        return self(*inputs.aligned[:3])

    def weight_at(self, step: int) -> float:
        """Return the factor on the term at an optimiser step; the same at all by default.

        Args:
            step: optimiser steps done before this one, over all starts of the run.
        """
        return self.weight

    def attach(self, network: nn.Module) -> None:
        """Prepare for a network whose inner layers the loss wants to see; called once, before training.

        Args:
            network: the network that is trained, with its models under their names.
        """

    def align_inputs(self, inputs: "LossInputs") -> Aligned:
        """Return prediction and truth as this loss compares them; by default what ``align`` makes of them.

        Args:
            inputs: prediction, truth and batch.
        """
        return self.align(inputs.prediction, inputs.target)

    def align(self, prediction: Tensor, target: Target) -> Aligned:
        """Return prediction and truth as this loss, and those added to it, compare them; by default as they are.

        Args:
            prediction: (B,C,H,W) float.
            target: the truth.
        """
        return Aligned(prediction, *target)

    def remarks(self, inputs: "LossInputs") -> dict[str, Tensor]:
        """Return further scalars worth logging, by name; none by default."""
        return {}


@dataclass
class LossInputs:
    """What a loss may see.

    Attributes:
        prediction: (B,C,H,W) float32, as the modality defines it, with its graph.
        target: the truth in the space of the prediction: see ``as_predicted`` of the modality.
        batch: everything else: image, camera, data set, the truth as it is in the data.
        main: the loss whose alignment the others share.
        modality: what is predicted.
        step: optimiser steps done before this one, over all starts of the run.
    """

    prediction: Tensor
    target: Target
    batch: GeometryBatch
    main: Loss
    modality: Modality | None = None
    step: int = 0
    _aligned: dict[Loss, Aligned] = field(default_factory=dict, repr=False)

    @property
    def aligned(self) -> Aligned:
        """Prediction and truth as the main loss compares them."""
        return self.aligned_by(self.main)

    def aligned_by(self, loss: Loss) -> Aligned:
        """Return prediction and truth as a loss compares them, computed once.

        Args:
            loss: the loss.
        """
        if loss not in self._aligned:
            self._aligned[loss] = loss.align_inputs(self)
        return self._aligned[loss]

    @property
    def truth(self) -> Target:
        """The truth as it is in the data, in the modality's unit."""
        assert self.modality is not None, "a task tells what it predicts"
        return self.batch.targets[self.modality.name]

    @cached_property
    def target_image(self) -> Tensor:
        """The truth as an image for the VAE, (B,3,H,W) float32."""
        assert self.modality is not None, "a task tells what it predicts"
        return self.modality.to_image(self.truth)

    @cached_property
    def perfect(self) -> Tensor:
        """The prediction that the truth as an image stands for, (B,C,H,W) float32: depth in [-1, 1], for instance."""
        assert self.modality is not None, "a task tells what it predicts"
        return self.modality.from_image(self.target_image)


def total_loss(inputs: LossInputs, others: Iterable[Loss]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the main loss plus others, each times its weight, and what is worth logging by name.

    Args:
        inputs: what the losses may see.
        others: losses that are added to the main one.

    Returns:
        The sum in the dtype of the main loss; and detached scalars: the others without their weights, and remarks.
    """
    main = inputs.main
    loss, extras = main.weight_at(inputs.step) * main.of(inputs), main.remarks(inputs)
    with torch.autocast(inputs.prediction.device.type, enabled=False):
        for term in others:
            value = term.of(inputs)
            loss = loss + term.weight_at(inputs.step) * value.to(loss.dtype)
            extras |= {term.name: value.detach().to(loss.dtype), **term.remarks(inputs)}
    return loss, extras
