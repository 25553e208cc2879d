"""Procedural surface materials: colours as a function of position on the surface."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Material:
    """A pattern of two colours, with grain.

    Attributes:
        color: linear RGB albedo in [0, 1].
        second_color: the pattern's other colour, linear RGB in [0, 1].
        pattern: one of ``PATTERNS``.
        period_m: size of one repeat of the pattern, metres.
        grain: strength of the fine noise laid over it, 0 to 1.
        gloss: strength of the specular highlight, 0 to 1.
        seed: makes noise differ between materials.
    """

    color: tuple[float, float, float]
    second_color: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pattern: str = "plain"
    period_m: float = 0.5
    grain: float = 0.1
    gloss: float = 0.1
    seed: int = 0

    def albedo(self, u: Array, v: Array, footprint_m: Array) -> Array:
        """Linear RGB of N surface points, (3,N) float32.

        The pattern fades into its mean where one pixel covers more than half a period, which is what an
        antialiased image would show.

        Args:
            u: (N,) first surface coordinate in metres.
            v: (N,) second surface coordinate in metres.
            footprint_m: (N,) size of the pixel on the surface in metres.
        """
        share = PATTERNS[self.pattern](u / self.period_m, v / self.period_m, self.seed)
        share = 0.5 + (share - 0.5) * _visibility(footprint_m / self.period_m)
        mixed = np.outer(self.color, 1 - share) + np.outer(self.second_color, share)
        fine = (_noise(u * 7, v * 7, self.seed) - 0.5) * _visibility(footprint_m * 7)
        coarse = _noise(u * 0.9, v * 0.9, self.seed + 1) - 0.5
        return np.clip(mixed * (1 + self.grain * (fine + 1.4 * coarse)), 0.01, 0.98).astype(np.float32)


def random_material(rng: np.random.Generator, patterns: tuple[str, ...] | None = None) -> Material:
    """A material with random colours and pattern (of ``patterns`` when given)."""
    color = _random_color(rng)
    other = _random_color(rng) if rng.random() < 0.5 else np.clip(color * rng.uniform(0.35, 1.6), 0.03, 0.95)
    return Material(
        color=tuple(color),
        second_color=tuple(other),
        pattern=str(rng.choice(patterns or tuple(PATTERNS))),
        period_m=float(np.exp(rng.uniform(np.log(0.15), np.log(1.2)))),
        grain=float(rng.uniform(0.05, 0.5)),
        gloss=float(rng.uniform(0, 0.4)) if rng.random() < 0.4 else 0.0,
        seed=int(rng.integers(1 << 20)),
    )


def _random_color(rng: np.random.Generator) -> Array:
    brightness = rng.uniform(0.12, 0.85)
    tint = rng.dirichlet(np.full(3, 25.0 if rng.random() < 0.6 else 5.0)) * 3
    return np.clip(brightness * tint, 0.03, 0.95)


def _visibility(footprint: Array) -> Array:
    return np.clip(2 - 4 * footprint, 0, 1)


def _bricks(u: Array, v: Array, seed: int) -> Array:
    row = np.floor(2 * v)
    along = u + 0.5 * (row % 2)
    mortar = (np.mod(2 * v, 1) < 0.12) | (np.mod(along, 1) < 0.06)
    return np.where(mortar, 1.0, 0.35 * _hash(np.floor(along), row, seed))


def _planks(u: Array, v: Array, seed: int) -> Array:
    row = np.floor(3 * v)
    return 0.6 * _hash(row, row, seed) + 0.4 * _noise(u * 2, v * 40, seed)


def _spots(u: Array, v: Array, seed: int) -> Array:
    du, dv = np.mod(u, 1) - 0.5, np.mod(v, 1) - 0.5
    return (du * du + dv * dv < 0.08).astype(u.dtype)


def _marble(u: Array, v: Array, seed: int) -> Array:
    turbulence = _noise(u * 2, v * 2, seed) + 0.5 * _noise(u * 4, v * 4, seed + 2)
    return 0.5 + 0.5 * np.sin(6 * (u + 1.5 * turbulence))


def _windows(u: Array, v: Array, seed: int) -> Array:
    column, row = np.mod(u, 1), np.mod(v, 1)
    return ((column > 0.25) & (column < 0.75) & (row > 0.3) & (row < 0.8)).astype(u.dtype)


PATTERNS: dict[str, Callable[[Array, Array, int], Array]] = {
    "plain": lambda u, v, seed: np.zeros_like(u),
    "checker": lambda u, v, seed: (np.floor(u) + np.floor(v)) % 2,
    "stripes": lambda u, v, seed: (np.floor(2 * (u if seed % 2 else v)) % 2).astype(u.dtype),
    "bricks": _bricks,
    "planks": _planks,
    "spots": _spots,
    "marble": _marble,
    "windows": _windows,
}
"""Share of the second colour, by name, as a function of (u, v) in periods and a seed."""


def _hash(x: Array, y: Array, seed: int) -> Array:
    """A fixed pseudo-random number in [0, 1) for every lattice point and seed."""
    mixed = x.astype(np.int64).astype(np.uint32) * np.uint32(0x9E3779B1)
    mixed ^= y.astype(np.int64).astype(np.uint32) * np.uint32(0x85EBCA77) + np.uint32((seed * 0xC2B2AE3D) & 0xFFFFFFFF)
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    mixed = (mixed ^ (mixed >> np.uint32(12))) * np.uint32(0x297A2D39)
    mixed ^= mixed >> np.uint32(15)
    return mixed.astype(np.float32) * np.float32(1 / 2**32)


def _noise(x: Array, y: Array, seed: int) -> Array:
    """Smooth value noise in [0, 1] with one lattice point per unit."""
    x0, y0 = np.floor(x), np.floor(y)
    fx, fy = x - x0, y - y0
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    low = _hash(x0, y0, seed) * (1 - fx) + _hash(x0 + 1, y0, seed) * fx
    high = _hash(x0, y0 + 1, seed) * (1 - fx) + _hash(x0 + 1, y0 + 1, seed) * fx
    return low * (1 - fy) + high * fy
