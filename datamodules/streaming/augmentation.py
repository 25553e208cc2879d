"""Random changes of training images: crops, colours and blur, each a function of seed, epoch and sample alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from datamodules.shards.codecs import IMAGE
from geometry.errors import InputError
from geometry.modalities.stored import nearest_places

Array = np.ndarray


@dataclass(frozen=True)
class Augmentation:
    """How training images are changed. Every part is off by default; what is known of the truth stays exact.

    Args:
        crop: Smallest share of both sides that a random crop keeps, in (0, 1]; the crop has the image's shape and is
            brought back to its size, the targets by taking the nearest pixel. Depth stays in metres, and the camera
            becomes that of the crop. 1 crops nothing.
        color: Largest change of brightness, contrast and saturation, each by a factor of 1 - color to 1 + color, in
            [0, 1). 0 changes nothing.
        blur: Largest standard deviation in pixels of a Gaussian blur of the image. 0 blurs nothing.

    Raises:
        InputError: A value is out of range.
    """

    crop: float = 1.0
    color: float = 0.0
    blur: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1 or not 0 <= self.color < 1 or not 0 <= self.blur <= 100:
            raise InputError(
                "data.augmentation needs crop in (0, 1], color in [0, 1) and blur from 0 to 100 pixels, got "
                f"{self.crop}, {self.color} and {self.blur}."
            )

    @property
    def is_off(self) -> bool:
        """Whether nothing is changed."""
        return self.crop == 1 and self.color == 0 and self.blur == 0

    def draw(self, seed: int) -> "Change":
        """Return the change of one sample.

        Args:
            seed: a number of 64 bits, of the run's seed, data set, epoch and key. One part's draw does not depend on
                whether the others are on.
        """
        side, column, row, *factors, blur = np.random.default_rng(seed).random(7).tolist()
        bright, contrast, saturation = (1 + self.color * (2 * factor - 1) for factor in factors)
        return Change(
            self.crop + (1 - self.crop) * side, (column, row), (bright, contrast, saturation), self.blur * blur
        )


@dataclass(frozen=True)
class Change:
    """The change of one sample.

    Attributes:
        side: share of both sides that the crop keeps.
        place: where the crop lies: 0 at the left and top, 1 at the right and bottom.
        factors: of brightness, contrast and saturation.
        blur_px: standard deviation of the blur.
    """

    side: float
    place: tuple[float, float]
    factors: tuple[float, float, float]
    blur_px: float

    def apply(self, arrays: dict[str, Any], targets: Iterable[str]) -> dict[str, Any]:
        """Return the changed entries of a sample, of the same shapes and types.

        Args:
            arrays: image (H,W,3) uint8, and targets, whose last two axes are rows and columns.
            targets: names of the targets.
        """
        height, width = arrays[IMAGE].shape[:2]
        left, top, columns, rows = self._window(height, width)
        changed = dict(arrays)
        if (rows, columns) != (height, width):
            window = arrays[IMAGE][top : top + rows, left : left + columns]
            changed[IMAGE] = cv2.resize(window, (width, height), interpolation=cv2.INTER_LINEAR)
            down, right = top + nearest_places(rows, height), left + nearest_places(columns, width)
            changed |= {name: arrays[name].take(down, axis=-2).take(right, axis=-1) for name in targets}
        changed[IMAGE] = self._recolored(changed[IMAGE])
        if self.blur_px > 0:
            changed[IMAGE] = cv2.GaussianBlur(changed[IMAGE], (0, 0), self.blur_px)
        return changed

    def pixel_from_cropped(self, height: int, width: int, flip: bool) -> Array:
        """Return (3,3) float32: where a point of the cropped image lies in the whole one, both mirrored if ``flip``.

        Args:
            height: of the image, in pixels.
            width: of the image, in pixels.
            flip: whether both are mirrored left to right.
        """
        left, top, columns, rows = self._window(height, width)
        left = width - left - columns if flip else left
        return np.array([[columns / width, 0, left], [0, rows / height, top], [0, 0, 1]], np.float32)

    def _window(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return left, top, columns and rows of the crop, in whole pixels."""
        columns, rows = (max(1, round(self.side * side)) for side in (width, height))
        left, top = (
            round(share * free) for share, free in zip(self.place, (width - columns, height - rows), strict=True)
        )
        return left, top, columns, rows

    def _recolored(self, image: Array) -> Array:
        bright, contrast, saturation = self.factors
        if self.factors == (1, 1, 1):
            return image
        values = image.astype(np.float32) * bright
        values = values.mean() + contrast * (values - values.mean())
        grey = values.mean(axis=2, keepdims=True)
        return (grey + saturation * (values - grey)).round().clip(0, 255).astype(np.uint8)


NO_AUGMENTATION = Augmentation()
