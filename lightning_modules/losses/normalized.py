"""Losses between a prediction and the truth as the network learns it: both in the range of the VAE's images.

Nothing is fitted to the truth: a network under these losses also learns the scale and shift that its images have.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.errors import InputError
from geometry.masked import Reduction, masked_mean
from lightning_modules.losses.auxiliary import GradientMatching
from lightning_modules.losses.base import Aligned, Loss, LossInputs

# Right, below, below right, below left: (rows, columns) from a pixel to its neighbour.
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


class NormalizedLoss(Loss):
    """A loss that compares predictions with the one that the truth's image stands for, whatever the main loss does.

    Convention:
        Depth of any parameterisation is in [-1, 1] between the quantiles of its image; a prediction is the mean of the
        decoded channels. Normals are unit vectors. With ``clip_prediction``, the default of depth, what lies beyond
        [-1, 1] costs something but has no gradient; recipes of these losses switch it off.
    """

    def of(self, inputs: LossInputs) -> Tensor:
        """Return the term by the alignment of this loss."""
        return self(*inputs.aligned_by(self)[:3])

    def align_inputs(self, inputs: LossInputs) -> Aligned:
        """Return the prediction and the perfect one."""
        return Aligned(inputs.prediction, inputs.perfect, inputs.target.mask)


class NormalizedL1(NormalizedLoss):
    """Mean absolute error in the range of the VAE's images.

    Args:
        weight: Factor on the term before it is added.
        reduction: ``pixel`` weighs all known pixels of the batch alike; ``image`` takes the mean of each image first.

    Source:
        Pavlovic et al., "Marigold V2", equation 5.
    """

    name = "normalized_l1"

    def __init__(self, weight: float = 1.0, reduction: Reduction = "pixel") -> None:
        super().__init__(weight)
        self.reduction: Reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the mean over channels and known pixels; exactly 0 where nothing is known."""
        error = known_error(prediction, target, valid_mask).abs()
        return masked_mean(error.mean(dim=1, keepdim=True), valid_mask, self.reduction)


class NormalizedMSE(NormalizedLoss):
    """Mean squared error in the range of the VAE's images.

    Args:
        weight: Factor on the term before it is added.
        reduction: ``pixel`` weighs all known pixels of the batch alike; ``image`` takes the mean of each image first.

    Source:
        Xu et al., "What Matters When Repurposing Diffusion Models for General Dense Perception Tasks?" (GenPercept).
    """

    name = "normalized_mse"

    def __init__(self, weight: float = 1.0, reduction: Reduction = "pixel") -> None:
        super().__init__(weight)
        self.reduction: Reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the mean over channels and known pixels; exactly 0 where nothing is known."""
        error = known_error(prediction, target, valid_mask).square()
        return masked_mean(error.mean(dim=1, keepdim=True), valid_mask, self.reduction)


class NormalizedGradientL1(NormalizedLoss):
    """Mean absolute error of the differences between neighbours, right and below, in the range of the VAE's images.

    Args:
        weight: Factor on the term before it is added.
        num_scales: Number of scales, each half as fine as the one before; their terms are added.

    Source:
        Pavlovic et al., "Marigold V2", equation 6. As in their code, over pairs of known pixels, both directions
        pooled.
    """

    name = "normalized_gradient_l1"

    def __init__(self, weight: float = 5.0, num_scales: int = 1) -> None:
        super().__init__(weight)
        self.matching = GradientMatching(num_scales=num_scales)

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the mean over channels and pairs; exactly 0 where no two neighbours are known."""
        return self.matching(prediction, target, valid_mask)


class HuberGradient(NormalizedLoss):
    """Huber loss of the differences between neighbours in four directions, two of them diagonal.

    Convention:
        Small errors of a difference count by half their square, errors beyond ``delta`` by delta x (error - delta / 2):
        noise is smoothed, true edges do not rule the loss. In the range of the VAE's images. The neighbours lie 1, 2,
        ... ``reach`` pixels apart. All pairs of known pixels weigh the same.

    Args:
        weight: Factor on the term before it is added.
        delta: Error of a difference at which squares end.
        reach: Largest distance of two neighbours in pixels along an axis.

    Source:
        Song et al., "DepthMaster", which weighs its gradients in several directions. Deviation: the Huber function
        itself; in the authors' code its two branches are exchanged.
    """

    name = "huber_gradient"

    def __init__(self, weight: float = 1e-3, delta: float = 0.2, reach: int = 1) -> None:
        super().__init__(weight)
        if not delta > 0 or reach < 1:
            raise InputError(f"HuberGradient needs delta > 0 and reach >= 1, got {delta} and {reach}.")
        self.delta, self.reach = delta, reach

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the mean over channels and pairs; exactly 0 where no two neighbours are known."""
        error = known_error(prediction, target, valid_mask)
        changes, pairs = [], []
        for distance in range(1, self.reach + 1):
            for rows, columns in _DIRECTIONS:
                here, there = _neighbours(error, rows * distance, columns * distance)
                both = torch.stack(_neighbours(valid_mask, rows * distance, columns * distance)).all(dim=0)
                change = F.huber_loss(there, here, reduction="none", delta=self.delta)
                changes.append(change.mean(dim=1).flatten(1))
                pairs.append(both.flatten(1))
        values, mask = (torch.cat(parts, dim=1)[:, None, None] for parts in (changes, pairs))
        return masked_mean(values, mask, "pixel")


def known_error(prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
    """Return prediction minus target in at least float32, 0 where unknown.

    Args:
        prediction: (B,C,H,W) float.
        target: (B,C,H,W) float, in the units of the prediction.
        valid_mask: (B,1,H,W) bool.
    """
    dtype = torch.promote_types(prediction.dtype, torch.float32)
    return torch.where(valid_mask, prediction.to(dtype), 0.0) - torch.where(valid_mask, target.to(dtype), 0.0)


def _neighbours(image: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return all pairs of pixels that lie so many rows (from 0 on) and columns apart, as two images."""
    height, width = max(image.shape[-2] - rows, 0), max(image.shape[-1] - abs(columns), 0)
    here = image[..., :height, max(-columns, 0) :][..., :width]
    there = image[..., rows:, max(columns, 0) :][..., :width]
    return here, there[..., :height, :]
