"""Medians as NumPy takes them."""

import torch
from torch import Tensor


def median(values: Tensor) -> Tensor:
    """Return the median of (N,) values, the mean of the two in the middle of an even number; NaN of none.

    Args:
        values: (N,) float.
    """
    if len(values) == 0:
        return values.new_full((), torch.nan)
    ordered = values.sort().values
    return (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
