"""Whether an export says what its checkpoint says."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from geometry.errors import InputError

# In float32, rounding alone separates the two: 2e-6 was seen in depth, 6e-5 in normals. They are divided by their
# length, which enlarges rounding where a network's output is almost zero; hence a laxer bound for single pixels.
_QUANTILE = 0.999
_TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 8e-2}
_SINGLE_PIXEL = 100.0


@dataclass(frozen=True)
class Agreement:
    """How far an export is from its checkpoint, over several images, sizes and seeds.

    Attributes:
        maximum: largest absolute difference. Published values span the modality's value_range.
        mean: mean absolute difference.
        num_comparisons: number of predictions that were compared.
    """

    maximum: float
    mean: float
    num_comparisons: int


def compare(pairs: Iterable[tuple[np.ndarray, np.ndarray]], dtype: str) -> Agreement:
    """Return how well predictions of an export agree with those of its checkpoint.

    Args:
        pairs: (checkpoint's, export's) predictions.
        dtype: arithmetic or weights of the export: float32, float16 or bfloat16.

    Raises:
        InputError: they differ by more than rounding.
    """
    differences = []
    for expected, found in pairs:
        if expected.shape != found.shape or not np.isfinite(found).all():
            raise InputError(f"the export is wrong: a prediction of shape {found.shape} is not finite or misshapen.")
        differences.append(np.abs(expected.astype(np.float64) - found).ravel())
    every = np.concatenate(differences)
    agreement = Agreement(float(every.max()), float(every.mean()), len(differences))
    tolerance = _TOLERANCES[dtype]
    if np.quantile(every, _QUANTILE) > tolerance or agreement.maximum > _SINGLE_PIXEL * tolerance:
        raise InputError(
            f"the export is wrong: its predictions differ from the checkpoint's by up to {agreement.maximum:.2g}, "
            f"{tolerance:.0e} is allowed in {dtype}. Nothing was written."
        )
    return agreement


def probe(height: int, width: int, seed: int) -> np.ndarray:
    """Return an image (H,W,3) uint8 to compare predictions on: smooth shading with grain.

    Args:
        height: in pixels.
        width: in pixels.
        seed: of the image.
    """
    generator = np.random.default_rng(seed)
    waves = generator.uniform(1, 4, (2, 3))
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    shading = 0.5 + 0.35 * np.sin(np.pi * (waves[0] * rows + waves[1] * columns))
    return (255 * (shading + 0.1 * generator.standard_normal(shading.shape)).clip(0, 1)).round().astype(np.uint8)
