"""What a dense target is. Everything that reads, trains, judges, shows or writes targets knows them by this alone."""

import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from geometry.batch import Target
from geometry.colorize import colorize_error
from geometry.errors import InputError
from geometry.modalities.several import SeveralPredictions
from geometry.modalities.stored import Stored

_REGISTERED: dict[str, type["Modality"]] = {}


@dataclass(frozen=True)
class StockPipeline:
    """The pipeline of diffusers that holds a network of a modality without code of ours.

    Attributes:
        class_name: name of the pipeline's class.
        options: what its constructor is told beside the parts.
        tag: the task under which the hub lists such models.
        needs: settings in model_index.json without which a model's output means something else; absent is right.
    """

    class_name: str
    options: Mapping[str, Any]
    tag: str = "image-to-image"
    needs: Mapping[str, Any] = field(default_factory=dict)

    def differs(self, index: Mapping[str, Any]) -> str:
        """Return in what a model means something else than the modality, or nothing.

        Args:
            index: content of its model_index.json.
        """
        for name, needed in self.needs.items():
            if index.get(name, needed) not in (needed, None):
                return f"says {name}: {json.dumps(index[name])}. Needed: {json.dumps(needed)}."
        return ""


class Modality(SeveralPredictions, Stored, ABC):
    """A kind of dense target: what its values mean, and how they are stored, encoded, judged, shown and published.

    A subclass is known by its name as soon as it is defined; those in ``geometry.modalities`` are always there.

    Convention:
        *Values* are (B,C,H,W) float32 in the modality's unit, as in ``Target``. A *prediction* is what ``from_image``
        makes of a decoded image; it may be in other units than values, and ``align`` brings it to those of a target.
        What users get is a *published* prediction, in ``value_range``.

    Attributes:
        title: name for people, in the plural of a sentence: "surface normals".
        value_range: smallest and largest published value.
        meaning: what a published value says, for model cards and pages.
        has_surface: whether published predictions can be shown as points in space.
        varies_by_image: whether predictions of parts of an image must be aligned before they fit each other.
        stock_pipeline: the pipeline of diffusers that holds it; None if there is none.
        frame: camera frame of the network's vectors; None where there are none.
        error_name: name of ``error`` in metrics.
        worst_error: error of the darkest colour in visualisations of errors.
        ends: words for the smallest and the largest value, where colours run from one to the other; None elsewhere.
    """

    title: ClassVar[str]
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    meaning: ClassVar[str]
    has_surface: ClassVar[bool] = False
    varies_by_image: ClassVar[bool] = False
    stock_pipeline: ClassVar[StockPipeline | None] = None
    error_name: ClassVar[str] = "abs_error"
    worst_error: ClassVar[float] = 0.5
    ends: ClassVar[tuple[str, str] | None] = None
    frame: str | None = None

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401
        """Register the class, unless it is a step on the way to others."""
        super().__init_subclass__(**options)
        if not inspect.isabstract(cls) and "name" in cls.__dict__:
            _REGISTERED[cls.name] = cls

    # In shards and batches.

    def restore(self, values: Tensor, limits: tuple[float, float]) -> Target:
        """Return stored values as a target. They may be changed in place, and nothing waits for the device.

        By default, a pixel is known where a channel is not ``unknown`` and all lie inside the limits.

        Args:
            values: (B,C,H,W) float32 as they were stored.
            limits: smallest and largest value that can be true in this data set.
        """
        low, high = limits
        inside = ((values >= low) & (values <= high)).all(dim=1, keepdim=True)
        mask = inside & (values != self.unknown).any(dim=1, keepdim=True)
        return Target(values.masked_fill_(~mask, 0), mask)

    def mirror_(self, values: Tensor) -> None:
        """Change in place what a left-right flip does to values, beside moving them; nothing by default.

        Args:
            values: (...,C,H,W) of any type, whose pixels are flipped already.
        """

    def turn(self, values: Tensor, rotation: Tensor) -> Tensor:
        """Return values as another camera at the same place has them; themselves by default.

        Args:
            values: (B,C,H,W) float.
            rotation: (3,3) float, which maps vectors from the camera's frame to the other's.
        """
        return values

    # To and from the images that the VAE knows.

    @abstractmethod
    def to_image(self, target: Target) -> Tensor:
        """Return the truth as an image for the VAE, the one that ``from_image`` turns into the truth.

        Args:
            target: the truth.

        Returns:
            (B,3,H,W) float32 in [-1, 1], a constant where the truth is unknown.
        """

    @abstractmethod
    def from_image(self, decoded: Tensor) -> Tensor:
        """Return the prediction that a decoded image stands for.

        Args:
            decoded: (B,3,H,W), output of the VAE decoder, nominally in [-1, 1].

        Returns:
            (B,C,H,W) float32.
        """

    # Beside the truth.

    def align(self, prediction: Tensor, target: Target) -> Tensor:
        """Return a prediction in the unit of a target, as close to it as the modality allows; itself by default.

        Args:
            prediction: (B,C,H,W) float.
            target: the truth, of the same size.
        """
        return prediction

    def as_predicted(self, target: Target) -> Target:
        """Return the truth in the space of predictions, where ``align`` fits them to it; itself by default.

        Losses compare predictions with this one.

        Args:
            target: the truth.
        """
        return target

    def undo(self, prediction: Tensor, target: Target) -> Tensor:
        """Return a prediction in the terms that metrics expect which know no modality; itself by default.

        Args:
            prediction: (B,C,H,W) float.
            target: the truth, of the same size. A modality may need it to get out of a space of its own.
        """
        return prediction

    def error(self, aligned: Tensor, target: Target) -> Tensor:
        """Return the error of every pixel, differentiable; by default the mean absolute difference of the channels.

        Args:
            aligned: (B,C,H,W) float, a prediction after ``align``.
            target: the truth.

        Returns:
            (B,1,H,W), anything where the truth is unknown.
        """
        return (aligned - target.values).abs().mean(dim=1, keepdim=True)

    @abstractmethod
    def colorize(self, values: Tensor, mask: Tensor | None = None, limits: Tensor | None = None) -> Tensor:
        """Return a visualisation.

        Args:
            values: (B,C,H,W) float, values or published predictions.
            mask: (B,1,H,W) bool, where they are known; None is everywhere.
            limits: (B,2) what ``color_limits`` returned; None takes those of the values.

        Returns:
            (B,3,H,W) float32, sRGB in [0, 1].
        """

    def color_limits(self, target: Target) -> Tensor | None:
        """Return (B,2), the values with the first and the last colour, or None where colours do not depend on a range.

        Args:
            target: values that shall span the colours.
        """
        return None

    def visualize(self, prediction: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
        """Return prediction, truth and error as visualisations, each (B,3,H,W) float32 in [0, 1].

        Args:
            prediction: (B,C,H,W) float, of the target's size.
            target: the truth.
        """
        aligned, limits = self.align(prediction, target), self.color_limits(target)
        return (
            self.colorize(aligned, limits=limits),
            self.colorize(target.values, target.mask, limits),
            colorize_error(self.error(aligned, target), target.mask, self.worst_error),
        )

    # What users get.

    def publish(self, prediction: Tensor) -> Tensor:
        """Return a prediction as users get it, inside ``value_range``; clamped to it by default.

        Args:
            prediction: (B,C,H,W) float32.
        """
        return prediction.clamp(*self.value_range)

    def renormalize(self, published: Tensor) -> Tensor:
        """Return published values that are valid again after interpolation or blending; themselves by default.

        Args:
            published: (B,C,H,W) float32.
        """
        return published

    def to_affine(self, published: Tensor) -> Tensor:
        """Return published values in a space where parts of an image differ by scale and shift; themselves by default.

        Args:
            published: (...,C,H,W) float32.
        """
        return published

    def from_affine(self, affine: Tensor) -> Tensor:
        """Return published values for those that ``to_affine`` returned.

        Args:
            affine: (...,C,H,W) float32.
        """
        return affine

    def stretch(self, published: Tensor, far_over_near: float) -> Tensor:
        """Return published values of a surface for a range that is known now; themselves by default.

        Args:
            published: float, of any shape.
            far_over_near: how many times as far as the value 0 the value 1 is.
        """
        return published

    def describe_published(self) -> str:
        """Return what a published value says, with the options of this object."""
        return self.meaning

    def describe_stock_mismatch(self) -> str:
        """Return why the stock pipeline cannot hold what this object predicts; empty if it can."""
        return ""

    def decoder_factors(self) -> tuple[float, float, float] | None:
        """Return by what an export multiplies the decoder's three channels; None for nothing.

        With them, the decoder's output follows the modality's defaults, and as the stock pipeline expects.
        """
        return None


def registered() -> dict[str, type[Modality]]:
    """Return all modalities by name."""
    return dict(_REGISTERED)


def modality_named(name: str) -> type[Modality]:
    """Return the modality of a name.

    Args:
        name: for instance "depth".

    Raises:
        InputError: there is none.
    """
    if name not in _REGISTERED:
        raise InputError(f"there is no modality {name!r}; choose from {', '.join(sorted(_REGISTERED))}.")
    return _REGISTERED[name]


def unit_range(values: Tensor) -> Tensor:
    """Return values in [-1, 1] as values in [0, 1]."""
    return (values + 1) / 2


def three_channels(values: Tensor) -> Tensor:
    """Return (B,1,H,W) as three equal channels, without a copy."""
    return values.expand(-1, 3, -1, -1) if values.shape[1] == 1 else values


def known_or(values: Tensor, mask: Tensor, otherwise: float) -> Tensor:
    """Return values as float32, and a constant where they are unknown."""
    return torch.where(mask, values.float(), otherwise)
