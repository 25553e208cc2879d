"""SinkLoss: a block of pixels must hold the right values, not each at its right place."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from geometry.errors import InputError
from lightning_modules.losses.normalized import NormalizedLoss

# So many numbers of pairs are held at a time, in each of the few copies that a part of the blocks needs.
_PAIRS_AT_A_TIME = 2**21


class SinkLoss(NormalizedLoss):
    """Cost of moving the predicted values of a block onto its true ones, by entropic optimal transport.

    Convention:
        The image is cut into blocks of K x K pixels that do not overlap; those at the right and lower edge may be
        partly outside, where nothing is known. Between all pairs of pixels of a block, cost C_ij is |prediction_i -
        truth_j|, the mean over channels, in the range of the VAE's images. Pairs that touch an unknown pixel cost B =
        1e6. A plan M with uniform marginals is found by Sinkhorn iterations (rows, then columns) on exp(-C / tau), in
        logarithms. The loss of a block is the sum of M_ij C_ij over pairs of known pixels divided by that of M_ij; the
        mean over all blocks of the batch with a known pixel is returned. The gradient flows through M, too.
        A cost B for a whole row is a factor that the first iteration takes out again. So rows of unknown pixels cost
        nothing here and their columns infinitely much, with the same plan for a large B and no rounding at 1e6.
        Even a perfect prediction costs a little, for the plan is soft. With tau to 0, the loss becomes that of the
        exact assignment.

    Args:
        weight: Factor on the term before it is added.
        block_size: Side K of a block in pixels.
        tau: Softness of the plan, in the unit of the cost.
        num_iterations: Sinkhorn iterations.

    Source:
        Pavlovic et al., "Marigold V2", section 3.4 and its public code.
    """

    name = "sink"

    def __init__(self, weight: float = 1.0, block_size: int = 5, tau: float = 0.1, num_iterations: int = 5) -> None:
        super().__init__(weight)
        if block_size < 2 or not tau > 0 or num_iterations < 1:
            raise InputError(
                f"SinkLoss needs block_size >= 2, tau > 0 and num_iterations >= 1, got {block_size}, {tau} and "
                f"{num_iterations}."
            )
        self.block_size, self.tau, self.num_iterations = block_size, tau, num_iterations

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the mean over the blocks with a known pixel; exactly 0 without any.

        Args:
            prediction: (B,C,H,W) float.
            target: (B,C,H,W) float, in the units of the prediction.
            valid_mask: (B,1,H,W) bool.
        """
        dtype = torch.promote_types(prediction.dtype, torch.float32)
        values = (torch.where(valid_mask, image.to(dtype), 0.0) for image in (prediction, target))
        predicted, expected, known = (self._blocks(image) for image in (*values, valid_mask))
        size = max(1, _PAIRS_AT_A_TIME // self.block_size**4)
        parts = zip(predicted.split(size), expected.split(size), known[..., 0].split(size), strict=True)
        # Computed anew in the backward pass: what the iterations keep would be twenty times the cost of all pairs.
        costs = torch.cat([checkpoint(self._costs, *part, use_reentrant=False) for part in parts])
        return costs.sum() / known.any(dim=1).sum().clamp(min=1)

    def _blocks(self, image: Tensor) -> Tensor:
        """Return (B,C,H,W) as blocks (N,K*K,C); 0 or False beyond the edges."""
        side = self.block_size
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -width % side, 0, -height % side))
        return (
            image.unflatten(3, (-1, side))
            .unflatten(2, (-1, side))  # B, C, rows of blocks, K, columns of blocks, K
            .permute(0, 2, 4, 3, 5, 1)
            .flatten(3, 4)
            .flatten(0, 2)
        )

    def _costs(self, predicted: Tensor, expected: Tensor, known: Tensor) -> Tensor:
        """Return the loss (N,) of blocks (N,K*K,C), 0 for those without a known pixel."""
        cost = _pairwise_cost(predicted, expected)
        log_kernel = torch.where(known[:, :, None], -cost / self.tau, 0.0)
        # A column of an unknown pixel is closed to known rows; where all rows are unknown, the block does not count.
        log_kernel = log_kernel.masked_fill(known[:, :, None] & ~known[:, None, :], -torch.inf)
        columns = torch.zeros_like(log_kernel[:, :1])
        for _ in range(self.num_iterations):
            rows = -torch.logsumexp(log_kernel + columns, dim=2, keepdim=True)
            columns = -torch.logsumexp(log_kernel + rows, dim=1, keepdim=True)
        plan = (log_kernel + rows + columns).exp() * (known[:, :, None] & known[:, None, :])
        total = plan.sum(dim=(1, 2))
        return (plan * cost).sum(dim=(1, 2)) / torch.where(total > 0, total, 1.0)


def _pairwise_cost(predicted: Tensor, expected: Tensor) -> Tensor:
    """Return (N,n,n): the mean over channels of |prediction_i - truth_j|, without a copy per channel at once."""
    channels = predicted.shape[-1]
    costs = ((predicted[:, :, None, c] - expected[:, None, :, c]).abs() for c in range(channels))
    return sum(costs, start=predicted.new_zeros(())) / channels
