"""Depth, errors and normals as pictures for people."""

import torch
from torch import Tensor

UNKNOWN_GREY = 0.5


def colorize_depth(
    depth: Tensor, valid_mask: Tensor | None = None, near: float | None = None, far: float | None = None
) -> Tensor:
    """Return depth as RGB (B,3,H,W) float32 in [0, 1]: near is bright, far is dark, unknown is mid grey."""
    known = _known(depth, valid_mask)
    values = depth.float()
    fill = torch.where(known, values, torch.nan).flatten(1)
    low = torch.nanquantile(fill, 0.02, dim=1) if near is None else torch.full_like(fill[:, 0], near)
    high = torch.nanquantile(fill, 0.98, dim=1) if far is None else torch.full_like(fill[:, 0], far)
    level = (high[:, None, None, None] - values) / (high - low).clamp(min=1e-6)[:, None, None, None]
    return torch.where(known, level.clamp(0, 1), UNKNOWN_GREY).expand(-1, 3, -1, -1)


def colorize_error(error: Tensor, valid_mask: Tensor, maximum: float) -> Tensor:
    """Return an error as RGB (B,3,H,W) float32 in [0, 1]: 0 is black, ``maximum`` and more is white."""
    known = _known(error, valid_mask)
    return torch.where(known, (error.float() / maximum).clamp(0, 1), UNKNOWN_GREY).expand(-1, 3, -1, -1)


def colorize_normals(normals: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return normals as RGB (B,3,H,W) float32 in [0, 1]: (n + 1) / 2, unknown is mid grey."""
    values = normals.float()
    known = values.isfinite().all(dim=1, keepdim=True) & (values != 0).any(dim=1, keepdim=True)
    known = known if mask is None else known & mask
    return torch.where(known, ((values + 1) / 2).clamp(0, 1), UNKNOWN_GREY)


def _known(values: Tensor, valid_mask: Tensor | None) -> Tensor:
    known = values.isfinite()
    return known if valid_mask is None else known & valid_mask
