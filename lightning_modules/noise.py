"""Latent noise that is a pure function of seeds, so that a resumed run and a repeated validation see the same."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

NoiseKind = Literal["zeros", "gaussian", "pyramid", "none"]

_PYRAMID_LEVELS = 10
_PYRAMID_DISCOUNT = 0.9


def seed_from(*parts: object) -> int:
    """Return a seed in [0, 2^63) that depends on the given values alone, not on process, device or run.

    Args:
        *parts: what the seed is to depend on, for instance a run's seed, a step and a sample's key.
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def draw_noise(kind: NoiseKind, like: Tensor, seeds: Sequence[int]) -> Tensor:
    """Return latent noise of unit variance, or zeros.

    Convention:
        Image i depends on ``seeds[i]`` alone: not on the rest of the batch, and not on the device.

    Args:
        kind: ``zeros`` and ``none`` give zeros; ``gaussian`` white noise; ``pyramid`` white noise plus coarser noise.
        like: (B,C,h,w) latent that gives shape, dtype and device.
        seeds: one seed per image; unused for zeros.

    Returns:
        (B,C,h,w) with the dtype and device of ``like``.
    """
    if kind in ("zeros", "none"):
        return torch.zeros_like(like)
    draw: Callable[[torch.Size, torch.Generator], Tensor] = _gaussian if kind == "gaussian" else _pyramid
    images = [draw(like.shape[1:], torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(images).to(like.device, like.dtype, non_blocking=True)


def _gaussian(shape: torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _pyramid(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """White noise plus ever coarser noise, scaled to unit standard deviation.

    Source:
        Multi-resolution noise as in Ke et al., "Repurposing Diffusion-Based Image Generators for Monocular Depth
        Estimation" (Marigold). Deviation: scaled per image, not per batch.
    """
    height, width = shape[-2:]
    noise = torch.randn(shape, generator=generator)
    for level in range(_PYRAMID_LEVELS):
        shrink = (2 + 2 * torch.rand((), generator=generator).item()) ** level
        height, width = max(1, int(height / shrink)), max(1, int(width / shrink))
        coarse = torch.randn((1, *shape[:-2], height, width), generator=generator)
        noise = noise + _PYRAMID_DISCOUNT**level * F.interpolate(coarse, size=shape[-2:], mode="bilinear")[0]
        if height == 1 or width == 1:
            break
    return noise / noise.std()
