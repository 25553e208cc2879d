"""How much predictions change where a video stands still."""

from dataclasses import dataclass

import numpy as np

from lightning_modules.inference.image_inputs import largest_value

# Largest difference of a pixel that stands still, of 255 levels: noise and compression are below.
_STILL_LEVELS = 4


@dataclass
class Flicker:
    """The mean change of published values from frame to frame, over the pixels whose colour stays the same.

    Convention:
        A pixel stands still where no channel of the image changes by more than 4 of 255 levels. The change is the mean
        absolute difference over these pixels and all channels, by the range of published values: 0.01 is one per cent.
        In a video that moves everywhere, surfaces without texture are what is left, and what they change is not all
        flicker.
    """

    _sum: float = 0.0
    _count: int = 0
    _before: np.ndarray | None = None

    def add(self, prediction: np.ndarray, still: np.ndarray | None) -> None:
        """Add the next frame.

        Args:
            prediction: (H,W) or (H,W,C) float32.
            still: (H,W) bool, where it stands still since the frame before; None for the first.
        """
        if still is not None and self._before is not None and still.any():
            change = np.abs(prediction[still].astype(np.float64) - self._before[still])
            self._sum += float(change.sum())
            self._count += change.size
        self._before = prediction

    def value(self, value_range: tuple[float, float]) -> float | None:
        """Return the mean change by a range of values; None if nothing stands still.

        Args:
            value_range: smallest and largest value.
        """
        return self._sum / self._count / (value_range[1] - value_range[0]) if self._count else None


def still_pixels(image: np.ndarray, before: np.ndarray | None) -> np.ndarray | None:
    """Return (H,W) bool, where an image is as the one before it; None without one.

    Args:
        image: (H,W,3) uint8, uint16 or float in [0, 1].
        before: of the same size and type.
    """
    if before is None:
        return None
    change = np.abs(image.astype(np.float32) - before.astype(np.float32)).max(axis=2)
    return np.asarray(change <= _STILL_LEVELS / 255 * largest_value(image))
