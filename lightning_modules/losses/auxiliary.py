"""Extra terms of a training loss, off by default: each has a weight, and is logged under its own name."""

import torch
from torch import Tensor

from geometry.errors import InputError
from geometry.masked import Reduction, masked_mean
from lightning_modules.losses.base import Loss


class GradientMatching(Loss):
    """Sharp edges in the right places: the error must not change from pixel to pixel, at several scales.

    Convention:
        At scale k every 2^k-th pixel is kept. Of neighbours that are both valid, right and below, the absolute
        difference of their errors is averaged, over channels too; the scales are added. For depth, the error is that
        after scale and shift.

    Args:
        weight: Factor on the term before it is added.
        num_scales: Number of scales, each half as fine as the one before.
        reduction: ``pixel`` weighs all pairs of pixels of the batch alike; ``image`` takes the mean of each image
            first.

    Source:
        Ranftl et al., "Towards Robust Monocular Depth Estimation", equation 11. Deviation: divided by the number of
        valid pairs rather than of valid pixels.
    """

    name = "gradient_matching"

    def __init__(self, weight: float = 0.5, num_scales: int = 4, reduction: Reduction = "pixel") -> None:
        super().__init__(weight)
        if num_scales < 1:
            raise InputError(f"GradientMatching needs num_scales >= 1, got {num_scales}.")
        self.num_scales = num_scales
        self.reduction: Reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the sum over the scales; exactly 0 where no two neighbours are valid.

        Args:
            prediction: (B,C,H,W) float.
            target: (B,C,H,W) float, in the units of the prediction.
            valid_mask: (B,1,H,W) bool.
        """
        error = torch.where(valid_mask, prediction, 0.0) - torch.where(valid_mask, target, 0.0)
        scales = [2**number for number in range(self.num_scales)]
        terms = [self._at(error[..., ::step, ::step], valid_mask[..., ::step, ::step]) for step in scales]
        return torch.stack(terms).sum()

    def _at(self, error: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the term of one scale."""
        changes, pairs = [], []
        for dim in (2, 3):
            num = max(error.shape[dim] - 1, 0)
            changes.append(error.diff(dim=dim).abs().mean(dim=1).flatten(1))
            pairs.append((valid_mask.narrow(dim, 0, num) & valid_mask.narrow(dim, 1, num)).flatten(1))
        values, mask = (torch.cat(parts, dim=1)[:, None, None] for parts in (changes, pairs))
        return masked_mean(values, mask, self.reduction)


class LatentConsistency(Loss):
    """Predicted latents stay close to those of the truth: the mean squared distance between the two.

    The truth is encoded as the image that a diffusion model of the task learns. For depth, its range fixes scale and
    shift, and which side is up. A latent pixel counts if all the pixels under it are known.

    Args:
        weight: Factor on the term before it is added.
    """

    name = "latent_consistency"

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__(weight)

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the mean over channels and known latent pixels, in float32.

        Args:
            prediction: (B,C,h,w) float, scaled latent.
            target: (B,C,h,w) float, scaled latent of the truth.
            valid_mask: (B,1,h,w) bool.
        """
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        squared = (prediction.to(dtype) - target.to(dtype)).square().mean(dim=1, keepdim=True)
        return masked_mean(squared, valid_mask, "pixel")


class ImageReconstruction(LatentConsistency):
    """The output that shall reconstruct the image stays close to the image's latent, which keeps details (Lotus).

    Args:
        weight: Factor on the term before it is added.
    """

    name = "image_reconstruction"

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)
