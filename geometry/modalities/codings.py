"""Codings: values of a modality as whole numbers of fewer bits, for shards and for the way to the device.

A modality names its coding in ``Stored.coding``; loader processes hand the codes on as they are, and whatever expands
a batch turns them into values on its device.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray


class Coding(ABC):
    """A way to write values as int16 codes.

    Attributes:
        name: name of the coding, which is also the ending of entries in shards.
        num_channels: number of channels K of codes.
        unknown: the code that stands for an unknown value, in every channel.
    """

    name: ClassVar[str]
    num_channels: ClassVar[int]
    unknown: ClassVar[int]

    def stored_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the shape of the codes of one image: (K,H,W)."""
        return self.num_channels, height, width

    @abstractmethod
    def encode(self, values: Array, known: Array) -> Array:
        """Return (K,H,W) int16, the same for the same input on every machine.

        Args:
            values: (C,H,W) float32.
            known: (H,W) bool, where they are known.
        """

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Return (B,C,H,W) float32, computed where the codes are and without waiting for the device.

        Args:
            codes: (B,K,H,W) int16; any number is allowed, those that are no codes stand for unknown values.
        """

    @abstractmethod
    def mirror_(self, codes: Tensor) -> None:
        """Do in place to codes what ``Modality.mirror_`` does to values.

        Args:
            codes: (...,K,H,W) int16, whose pixels are flipped already.
        """

    def decode_image(self, codes: Array) -> Array:
        """Return (C,H,W) float16 of the codes (K,H,W) int16 of one image."""
        return self.decode(torch.from_numpy(np.ascontiguousarray(codes))[None])[0].numpy().astype(np.float16)


class OctahedralDirections(Coding):
    """Directions in space by two numbers of 13 bits.

    The unit sphere is laid onto an octahedron, the half with z < 0 folded outward, so that it fills the square
    [-1, 1]². Each coordinate has 8191 levels from 0 to 8190; 8191 stands for unknown. A direction comes back within
    0.03 degrees: half a level in both coordinates moves a point of the octahedron, which is at least 1/√3 away from its
    centre, by √6 / 8190.
    """

    name = "octahedral"
    num_channels = 2
    unknown = 8191
    _half = 4095  # levels on each side of 0, which has one itself: so mirrored directions come back mirrored

    def encode(self, values: Array, known: Array) -> Array:
        """Return (2,H,W) int16.

        Args:
            values: (3,H,W) float32, of any length. Those of none, and what is no number, are unknown.
            known: (H,W) bool.
        """
        known = known & (np.isfinite(values).all(axis=0) & (values != 0).any(axis=0))
        values = np.where(known, values, np.float32(1)).astype(np.float32)
        x, y, z = values / np.abs(values).sum(axis=0)
        is_behind = z < 0
        u = np.where(is_behind, np.copysign(1 - np.abs(y), x), x)
        v = np.where(is_behind, np.copysign(1 - np.abs(x), y), y)
        codes = np.rint(np.stack([u, v]) * self._half).astype(np.int16) + np.int16(self._half)
        return np.where(known, codes, np.int16(self.unknown))

    def decode(self, codes: Tensor) -> Tensor:
        """Return (B,3,H,W) float32 unit vectors, zero where unknown."""
        # In place where it can be: on a CPU, fresh memory costs more than the arithmetic.
        directions = codes.new_empty((codes.shape[0], 3, *codes.shape[2:]), dtype=torch.float32)
        flat, (x, y, z) = directions[:, :2], directions.split(1, dim=1)
        flat.copy_(codes).sub_(self._half).div_(self._half)
        size = y.abs()
        spare = torch.maximum(torch.abs(x, out=z), size)
        is_unknown = spare > 1  # what is no level lies beyond the square
        z.add_(size).neg_().add_(1)  # 1 - |x| - |y|
        fold = torch.clamp(z, max=0, out=size)
        for axis in (x, y):
            axis.sub_(torch.copysign(fold, axis, out=spare))
        squared_length = torch.mul(x, x, out=spare).addcmul_(y, y).addcmul_(z, z)
        return directions.mul_(squared_length.rsqrt_().masked_fill_(is_unknown, 0))

    def mirror_(self, codes: Tensor) -> None:
        """Turn the x axis around; unknown stays unknown."""
        horizontal = codes[..., 0, :, :]
        torch.sub(2 * self._half, horizontal, out=horizontal)
