"""Means and quantiles over the pixels of images that are known."""

from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["pixel", "image"]


def masked_mean(values: Tensor, mask: Tensor, reduction: Reduction) -> Tensor:
    """Return the mean inside the mask: over all pixels, or of the means of those images that have any.

    Args:
        values: (B,1,H,W) float.
        mask: (B,1,H,W) bool.
        reduction: ``pixel`` or ``image``.

    Returns:
        Scalar; exactly 0 for an empty mask.
    """
    sums = torch.where(mask, values, 0.0).sum(dim=(1, 2, 3))
    counts = mask.sum(dim=(1, 2, 3))
    if reduction == "pixel":
        return sums.sum() / counts.sum().clamp(min=1)
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def masked_quantiles(values: Tensor, mask: Tensor, quantiles: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return two quantiles per image inside the mask, linearly interpolated as NumPy does.

    Sorts rather than asks how many values there are, so that no GPU has to wait for the host.

    Args:
        values: (B,1,H,W) float.
        mask: (B,1,H,W) bool.
        quantiles: two numbers in [0, 1].

    Returns:
        Two tensors (B,); 0 for an empty mask.
    """
    ordered = torch.where(mask, values, torch.inf).flatten(1).sort(dim=1).values
    last = mask.flatten(1).sum(dim=1).sub(1).clamp(min=0)
    low, high = (_interpolate(ordered, quantile * last.double()) for quantile in quantiles)
    empty = ~mask.flatten(1).any(dim=1)
    return low.masked_fill(empty, 0.0), high.masked_fill(empty, 0.0)


def _interpolate(ordered: Tensor, position: Tensor) -> Tensor:
    """Read (B,N) rows at fractional positions (B,)."""
    below = position.floor().long()
    above = position.ceil().long()
    low = ordered.gather(1, below[:, None])[:, 0]
    high = ordered.gather(1, above[:, None])[:, 0]
    return torch.lerp(low, high, (position - below).to(ordered.dtype))
