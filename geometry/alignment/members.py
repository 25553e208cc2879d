"""Several predictions of one image, each known up to a scale and a shift, brought together."""

import torch
from torch import Tensor

from geometry.alignment.least_squares import align_scale_shift


def align_members(members: Tensor) -> Tensor:
    """Return predictions with the scale and shift that fit each of them to the first in the sense of least squares.

    Where no positive scale fits, for instance because a member is flat, it is shifted only.

    Args:
        members: (N,B,1,H,W) float.

    Returns:
        (N,B,1,H,W), the first as it was. Members that differ by a positive scale and a shift are equal.
    """
    guide = members[0]
    return torch.stack([guide, *(_fitted(member, guide) for member in members[1:])])


def _fitted(member: Tensor, guide: Tensor) -> Tensor:
    everywhere = torch.ones_like(guide, dtype=torch.bool)
    fit = align_scale_shift(member, guide, everywhere)
    scale, shift = (number.to(member.dtype)[:, None, None, None] for number in fit)
    shifted = member + (guide - member).mean(dim=(1, 2, 3), keepdim=True)
    return torch.where((scale > 0) & scale.isfinite() & shift.isfinite(), scale * member + shift, shifted)
