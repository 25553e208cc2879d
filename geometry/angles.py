"""Angles between vectors, image by image."""

import math

import torch
from torch import Tensor


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle between vectors along dimension 1, differentiable everywhere.

    Args:
        first: (B,3,H,W) float, of any lengths.
        second: (B,3,H,W) float, of any lengths.

    Returns:
        (B,1,H,W) in [0, pi]; pi / 2 where a vector is zero.
    """
    cosine = (first * second).sum(dim=1, keepdim=True)
    squared_sine = torch.linalg.cross(first, second, dim=1).square().sum(dim=1, keepdim=True)
    parallel = squared_sine == 0
    sine = torch.where(parallel, 1.0, squared_sine).sqrt() * ~parallel
    undefined = parallel & (cosine == 0)
    return torch.where(undefined, math.pi / 2, torch.atan2(sine, torch.where(undefined, 1.0, cosine)))


def angle_deg(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle between vectors (B,3,H,W) in degrees, (B,1,H,W); 90 where a vector is zero."""
    return angle_between(first, second) * (180 / math.pi)
