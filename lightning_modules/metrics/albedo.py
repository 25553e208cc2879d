"""Metrics of albedo: summed in float64, exact over any number of ranks and batches."""

import torch
from torch import Tensor

from geometry.modalities.albedo import with_gamma
from lightning_modules.metrics.base import MeanScores

ALBEDO_METRICS = ("si_rmse", "rmse", "si_psnr", "psnr", "si_rmse_constant")
# A perfect prediction has 100 dB.
_MIN_SQUARED_ERROR = 1e-10


class AlbedoError(MeanScores):
    """Errors of albedo, with and without the best scale per image; the mean of per-image metrics.

    Convention:
        Over the known pixels and the three channels of an image. ``rmse`` compares linear albedo; ``psnr``, in dB with
        a peak of 1, compares colours after gamma 1/2.2, as Marigold's evaluation on Hypersim does. ``si_rmse`` and
        ``si_psnr`` first multiply the prediction by the one number per image that fits linear albedo best in the sense
        of least squares. ``si_rmse_constant`` is what the best constant colour per image would score as ``si_rmse``.
        An image without known pixels is not counted.

    Source:
        Ke et al., "Marigold: Affordable Adaptation of Diffusion-Based Image Generators for Image Analysis".
    """

    headline, constant = "si_rmse", "si_rmse_constant"

    def __init__(self) -> None:
        super().__init__(ALBEDO_METRICS)

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> None:
        """Add images.

        Args:
            prediction: (B,3,H,W) float, linear albedo.
            target: (B,3,H,W) float, linear albedo.
            valid_mask: (B,1,H,W) bool.
        """
        truth = torch.where(valid_mask, target.double(), 0.0)
        predicted = torch.where(valid_mask, prediction.double(), 0.0)
        num_pixels = valid_mask.sum(dim=(1, 2, 3))
        count = (3 * num_pixels.clamp(min=1)).double()

        def total(values: Tensor) -> Tensor:
            return values.sum(dim=(1, 2, 3))

        def mean_square(error: Tensor) -> Tensor:
            return total(error.square()) / count

        energy = total(predicted.square())
        scale = torch.where(energy > 0, total(predicted * truth) / energy.where(energy > 0, torch.ones(())), 1.0)
        scaled = scale[:, None, None, None] * predicted
        mean = truth.sum(dim=(2, 3), keepdim=True) / num_pixels.clamp(min=1)[:, None, None, None]
        colors = with_gamma(truth)
        values = [
            mean_square(scaled - truth).sqrt(),
            mean_square(predicted - truth).sqrt(),
            _decibels(mean_square(with_gamma(scaled) - colors)),
            _decibels(mean_square(with_gamma(predicted) - colors)),
            mean_square(torch.where(valid_mask, mean - truth, 0.0)).sqrt(),
        ]
        counted = num_pixels > 0
        self.sums += torch.where(counted, torch.stack(values), 0.0).sum(dim=1)
        self.num_images += counted.sum()


def _decibels(squared_error: Tensor) -> Tensor:
    return -10 * squared_error.clamp(min=_MIN_SQUARED_ERROR).log10()
