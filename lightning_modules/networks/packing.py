"""Latents as rows of tokens: two by two latent pixels are one token, as transformers of diffusers take them."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pack(latent: Tensor) -> Tensor:
    """Return latents as tokens.

    Args:
        latent: (B,C,h,w), h and w even.

    Returns:
        (B,h/2*w/2,4C), row by row; a token holds the four pixels of its first channel, then those of its second.
    """
    batch, _, height, width = latent.shape
    return F.pixel_unshuffle(latent, 2).flatten(2).transpose(1, 2).reshape(batch, (height // 2) * (width // 2), -1)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Return tokens as latents: the inverse of ``pack``.

    Args:
        tokens: (B,h/2*w/2,4C).
        height: h.
        width: w.

    Returns:
        (B,C,h,w).
    """
    batch, _, channels = tokens.shape
    return F.pixel_shuffle(tokens.transpose(1, 2).reshape(batch, channels, height // 2, width // 2), 2)


def grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return row and column of every token of a grid, (height*width,) int64 each, row by row.

    Args:
        height: rows.
        width: columns.
        device: where to.
    """
    rows = torch.arange(height, device=device)[:, None].expand(height, width)
    columns = torch.arange(width, device=device)[None].expand(height, width)
    return rows.reshape(-1), columns.reshape(-1)
