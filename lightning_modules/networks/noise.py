"""Latent noise that is a pure function of seeds, so that a resumed run and a repeated validation see the same."""

import hashlib
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

NoiseKind = Literal["zeros", "gaussian", "pyramid", "none"]

_PYRAMID_LEVELS = 10
_PYRAMID_STRENGTH = 0.9


def seed_from(*parts: object) -> int:
    """Return a seed in [0, 2^63) that depends on the given values alone, not on process, device or run.

    Args:
        *parts: what the seed is to depend on, for instance a run's seed, a step and a sample's key.
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seeds_of_member(number: int, seeds: Sequence[int]) -> Sequence[int]:
    """Return the seeds of a member of an ensemble, one per image.

    The first member has the images' own seeds, so that it is what a prediction without an ensemble would be.

    Args:
        number: of the member, from 0.
        seeds: the images' own.
    """
    return seeds if number == 0 else [seed_from(seed, "member", number) for seed in seeds]


def draw_noise(kind: NoiseKind, like: Tensor, seeds: Sequence[int], strengths: Sequence[float] | None = None) -> Tensor:
    """Return latent noise of unit variance, or zeros.

    Convention:
        Image i depends on ``seeds[i]`` alone: not on the rest of the batch, and not on the device.

    Args:
        kind: ``zeros`` and ``none`` give zeros; ``gaussian`` white noise; ``pyramid`` white noise plus coarser noise.
        like: (B,C,h,w) latent that gives shape, dtype and device.
        seeds: one seed per image; unused for zeros.
        strengths: for ``pyramid``, one number in [0, 1] per image: how much each level adds relative to the next finer
            one. 0 is white noise; None is 0.9 for all.

    Returns:
        (B,C,h,w) with the dtype and device of ``like``.
    """
    if kind in ("zeros", "none"):
        return torch.zeros_like(like)
    shape, generators = like.shape[1:], [torch.Generator().manual_seed(seed) for seed in seeds]
    if kind == "gaussian":
        images = [torch.randn(shape, generator=generator) for generator in generators]
    else:
        strengths = [_PYRAMID_STRENGTH] * len(seeds) if strengths is None else strengths
        images = [_pyramid(shape, *each) for each in zip(generators, strengths, strict=True)]
    return torch.stack(images).to(like.device, like.dtype, non_blocking=True)


def _pyramid(shape: torch.Size, generator: torch.Generator, strength: float) -> Tensor:
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
        noise = noise + strength**level * F.interpolate(coarse, size=shape[-2:], mode="bilinear")[0]
        if height == 1 or width == 1:
            break
    return noise / noise.std()
