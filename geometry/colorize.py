"""Depth, errors and normals as visualisations for people.

Convention (the whole file):
    Visualisations are sRGB, (B,3,H,W) float32 in [0, 1]. What is unknown is mid grey (0.5, 0.5, 0.5), which neither
    colour map holds. Lightness runs evenly along both maps, so that they survive greyscale printing and colour
    blindness.
"""

import torch
from torch import Tensor

UNKNOWN_GREY = 0.5

# Both maps are paths of our own through CIELAB, evenly spaced in lightness, as sRGB bytes.
# Lightness 8 to 96: night blue, violet, magenta, red, orange, cream.
_FAR_TO_NEAR = """
    001738 012052 17286a 312f80 4b3594 7f3095 a9278e cd2081 ea2872
    ff3e60 ff6757 ff8555 ff9f58 ffb75d ffcd6b ffe191 fff4c7
"""
# Lightness 97 to 25: paper, sand, orange, dark red.
_SMALL_TO_LARGE = "f9f6ef efdab6 e8bc81 e39c53 db7a38 d35325 bf2e20 9d1b21 7a091e"

# The range of a visualisation leaves out this share of the pixels at either end, and is measured on at most so many.
_TAIL = 0.02
_QUANTILE_PIXELS = 1_000_000


def colorize_depth(
    depth: Tensor, valid_mask: Tensor | None = None, near: float | None = None, far: float | None = None
) -> Tensor:
    """Return depth as a visualisation: near is bright and warm, far is dark and blue.

    Convention:
        Linear in depth. ``near`` and less is cream (1.00, 0.96, 0.78), ``far`` and more night blue (0.00, 0.09, 0.22).
        An image of one single depth gets the colour in the middle.

    Args:
        depth: (B,1,H,W) float, in any unit.
        valid_mask: (B,1,H,W) bool, where depth is known; None stands for every finite value. Pass it for ground
            truth, where unknown depth is 0.
        near: depth of the brightest colour; None takes the 2 % quantile of each image.
        far: depth of the darkest colour; None takes the 98 % quantile of each image.

    Returns:
        (B,3,H,W) float32 in [0, 1].
    """
    known = _known(depth, valid_mask)
    values = torch.where(known, depth, 0.0).float()
    lowest = _quantile(values, known, _TAIL) if near is None else torch.full_like(values[:, :1, :1, :1], near)
    highest = _quantile(values, known, 1 - _TAIL) if far is None else torch.full_like(values[:, :1, :1, :1], far)
    span = highest - lowest
    level = torch.where(span == 0, 0.5, (highest - values) / torch.where(span == 0, 1.0, span))
    return _paint(level, known, _FAR_TO_NEAR)


def colorize_error(error: Tensor, valid_mask: Tensor, maximum: float) -> Tensor:
    """Return an error as a visualisation: the darker and redder, the larger.

    Convention:
        0 is the colour of paper (0.98, 0.96, 0.94), ``maximum`` and more dark red (0.48, 0.04, 0.12). Signs are
        dropped.

    Args:
        error: (B,1,H,W) float, in any unit.
        valid_mask: (B,1,H,W) bool, where the error is known.
        maximum: error of the darkest colour, in the unit of ``error``. Larger than 0.

    Returns:
        (B,3,H,W) float32 in [0, 1].

    Raises:
        ValueError: ``maximum`` is not larger than 0.
    """
    if not maximum > 0:
        raise ValueError(f"maximum must be larger than 0, got {maximum}.")
    known = _known(error, valid_mask)
    return _paint(torch.where(known, error, 0.0).float().abs() / maximum, known, _SMALL_TO_LARGE)


def colorize_normals(normals: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return normals as a visualisation, each component as a colour.

    Convention:
        (red, green, blue) = (normal + 1) / 2 for normals in our frame. A wall head-on (0, 0, 1) is light blue
        (0.5, 0.5, 1), a floor (0, 1, 0) green (0.5, 1, 0.5), a wall on the left (1, 0, 0) pink (1, 0.5, 0.5).

    Args:
        normals: (B,3,H,W) float, components in [-1, 1].
        mask: (B,1,H,W) bool, where normals are known; None stands for all that are finite (zeros are grey anyway).

    Returns:
        (B,3,H,W) float32 in [0, 1].
    """
    known = normals.isfinite().all(dim=1, keepdim=True)
    known = known if mask is None else known & mask
    return torch.where(known, ((normals.float() + 1) / 2).clamp(0, 1), UNKNOWN_GREY)


def eight_bit(colors: Tensor) -> Tensor:
    """Return colours as image files hold them.

    Args:
        colors: (...,3,H,W) in [0, 1].

    Returns:
        (...,H,W,3) uint8 RGB, rounded to the nearest, on the same device.
    """
    return (colors.movedim(-3, -1) * 255).round().byte()


def _known(values: Tensor, valid_mask: Tensor | None) -> Tensor:
    return values.isfinite() if valid_mask is None else values.isfinite() & valid_mask


def _quantile(values: Tensor, known: Tensor, share: float) -> Tensor:
    """Return (B,1,1,1), one quantile of the known values of each image; 0 where none is known."""
    candidates = torch.where(known, values, torch.nan).flatten(1)
    candidates = candidates[:, :: candidates.shape[1] // _QUANTILE_PIXELS + 1]
    return torch.nanquantile(candidates, share, dim=1).nan_to_num(nan=0.0)[:, None, None, None]


def _paint(level: Tensor, known: Tensor, color_map: str) -> Tensor:
    """Look up levels (B,1,H,W), 0 to 1 from the first colour to the last, with linear interpolation."""
    colors = torch.tensor(list(bytes.fromhex(color_map)), dtype=torch.float32, device=level.device).view(-1, 3) / 255
    position = level.clamp(0, 1).squeeze(1) * (len(colors) - 1)
    index = position.long().clamp(max=len(colors) - 2)
    visualisation = torch.lerp(colors[index], colors[index + 1], (position - index)[..., None])
    return torch.where(known, visualisation.movedim(-1, 1), UNKNOWN_GREY)
