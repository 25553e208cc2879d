"""Whether a prediction is wrong where it says that it is unsure."""

from typing import Any

import torch
from torch import Tensor

from geometry.batch import Target
from geometry.modalities import Modality
from lightning_modules.metrics.base import GeometryMetric

NUM_SHARES = 20
# Bins of spread of the reliability table: four to a factor of ten; the first also holds what is smaller, 0 included.
_DECADES = (-4, 3)
_EDGES = torch.logspace(*_DECADES, 4 * (_DECADES[1] - _DECADES[0]) + 1, dtype=torch.float64)


class Calibration(GeometryMetric):
    """Sparsification of the error by the spread, and the error beside the spread; images count alike.

    Convention:
        The sparsification curve is the mean error of the pixels that are left when the share s = 0, 0.05, ..., 0.95 of
        the least sure is taken away, relative to that of all pixels; the oracle takes away the largest errors. ``ause``
        is the area between the two: 0 where the spread ranks pixels as the error does. ``ause_chance`` is what a
        spread without any meaning has. Pixels of equal spread are taken away in equal parts.
        ``error_over_spread`` is the root mean square error by the root mean square spread, 1 where the spread says
        how large the error is. Both are in the modality's ``spread_unit``.

    Args:
        modality: what is predicted.

    Source:
        Ilg et al., "Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow", ECCV 2018.
    """

    headline = "ause"
    knows_modality = True
    curves: Tensor
    squares: Tensor
    bins: Tensor

    def __init__(self, modality: Modality) -> None:
        super().__init__()
        self.modality = modality
        # Curve of the spread and of the oracle; square of error and spread; per bin the share, error and spread.
        for name, shape in (("curves", (2, NUM_SHARES)), ("squares", (2,)), ("bins", (3, len(_EDGES)))):
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor, spread: Tensor) -> None:
        """Add images.

        Args:
            prediction: (B,C,H,W) float.
            target: (B,C,H,W) float, the truth.
            valid_mask: (B,1,H,W) bool.
            spread: (B,1,H,W) float, of such predictions.
        """
        truth = Target(target, valid_mask)
        errors = self.modality.calibration_error(self.modality.align(prediction, truth), truth)
        spreads = self.modality.spread_in_unit(prediction, spread, truth)
        for error, sureness, known in zip(errors, spreads, valid_mask, strict=True):
            if known.any():
                self._add_image(error[known].double(), sureness[known].double())

    def _add_image(self, error: Tensor, spread: Tensor) -> None:
        """Add the pixels (N,) of an image."""
        curves = torch.stack([_sparsification(error, spread), _sparsification(error, error)])
        self.curves += (curves / curves[:, :1]) if bool(curves[0, 0] > 0) else torch.zeros_like(curves)
        pairs = torch.stack([error.square(), spread.square()])
        self.squares += pairs.mean(dim=1)
        number = (torch.bucketize(spread, _EDGES.to(spread.device), right=True) - 1).clamp(min=0)
        values = torch.cat([torch.ones_like(pairs[:1]), pairs]) / len(error)
        self.bins.index_add_(1, number, values)
        self.num_images += 1

    def compute(self) -> dict[str, Tensor]:
        """Return the areas, and how large the error is beside the spread; NaN without any image."""
        curve, oracle = self.curves / self.num_images
        error, spread = self.squares
        return {
            "ause": _area(curve - oracle),
            "ause_chance": _area(curve[:1] - oracle),
            "error_over_spread": torch.where(spread > 0, (error / spread).sqrt(), torch.nan),
        }

    def describe(self) -> dict[str, Any]:
        """Return curves and reliability table, for files."""
        curve, oracle = (self.curves / self.num_images).tolist()
        edges, rows = _EDGES.tolist(), []
        for index, (share, error, spread) in enumerate(self.bins.T.tolist()):
            if share > 0:
                rows.append(
                    {
                        "spread_from": edges[index] if index else 0.0,
                        "spread_to": edges[index + 1] if index + 1 < len(edges) else None,
                        "pixel_share": share / float(self.num_images),
                        "rms_spread": (spread / share) ** 0.5,
                        "rms_error": (error / share) ** 0.5,
                    }
                )
        shares = [number / NUM_SHARES for number in range(NUM_SHARES)]
        unit = self.modality.spread_unit
        return {"unit": unit, "removed_share": shares, "error_left": curve, "error_left_oracle": oracle, "bins": rows}


def _sparsification(error: Tensor, doubt: Tensor) -> Tensor:
    """Return the mean errors (K,) of what is left when growing shares of the most doubtful pixels are taken away."""
    count = len(error)
    order = doubt.argsort()
    _, group, sizes = torch.unique_consecutive(doubt[order], return_inverse=True, return_counts=True)
    # Equals lose equal parts: each has the mean error of its group.
    means = torch.zeros(len(sizes), dtype=error.dtype, device=error.device).index_add_(0, group, error[order]) / sizes
    sums = means[group].cumsum(0)
    left = [max(1, count - count * number // NUM_SHARES) for number in range(NUM_SHARES)]
    kept = torch.tensor(left, device=error.device)
    return sums[kept - 1] / kept


def _area(curve: Tensor) -> Tensor:
    return torch.trapezoid(curve, dx=1 / NUM_SHARES)
