"""Batches in the compact form in which they travel: from loader processes to the trainer, and from there to the device.

An image of 480x640 with depth and normals takes 9 MB as a model sees it and 3.4 MB packed. What is left to do when a
batch has arrived is cheap on a GPU: conversion to float32, masks, and normals of exactly unit length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Self

import numpy as np
import torch
from torch import Tensor

from geometry.batch import GeometryBatch

Array = np.ndarray

# A stored vector of about unit length is a normal; anything else, such as zero, is unknown.
MIN_SQUARED_LENGTH, MAX_SQUARED_LENGTH = 0.25, 4.0
_ALIGNMENT = 64
_TORCH_TYPES = {"uint8": torch.uint8, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Field:
    """Place of one array in a buffer.

    Attributes:
        offset: number of its first byte.
        shape: its shape.
        dtype: uint8, float16 or float32.
    """

    offset: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def of(self, buffer: Tensor) -> Tensor:
        """Return the array as a view of a buffer (N,) uint8."""
        return buffer[self.offset : self.offset + self.num_bytes].view(_TORCH_TYPES[self.dtype]).view(self.shape)


@dataclass(frozen=True)
class PackedBatch:
    """A ``GeometryBatch`` in stored precision, all of it in one piece of memory: one copy brings it anywhere.

    Attributes:
        buffer: (N,) uint8. In a loader process it lies in shared memory, so that it is not copied on its way.
        fields: where in it are image (B,3,H,W) uint8, depth (B,1,H,W) and perhaps normals (B,3,H,W).
        near_m: smallest depth that counts as valid.
        far_m: largest depth that counts as valid.
        key: sample ids.
        dataset: name of the data set.
    """

    buffer: Tensor
    fields: Mapping[str, Field]
    near_m: float
    far_m: float
    key: list[str]
    dataset: str

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device. A copy from page-locked memory to a GPU runs beside what the GPU is doing.

        Args:
            device: where to.
        """
        beside = device.type == "cuda" and self.buffer.is_pinned()
        return replace(self, buffer=_copy_beside(self.buffer, device) if beside else self.buffer.to(device))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory."""
        return replace(self, buffer=self.buffer.pin_memory())

    def expand(self) -> GeometryBatch:
        """Return the batch as a model sees it, computed where the buffer is and without waiting for the device."""
        image, depth = self._float32("image"), self._float32("depth")
        valid_mask = (depth >= self.near_m) & (depth <= self.far_m) & (depth > 0)
        batch: GeometryBatch = {
            "image": image.mul_(2 / 255).sub_(1),
            "depth": depth.masked_fill_(~valid_mask, 0),
            "valid_mask": valid_mask,
            "key": self.key,
            "dataset": self.dataset,
        }
        if "normals" in self.fields:
            batch["normals"] = self._float32("normals")
            batch["normals_mask"] = _make_unit(batch["normals"])
        return batch

    def _float32(self, name: str) -> Tensor:
        """Return a float32 copy of an array."""
        return self.fields[name].of(self.buffer).to(torch.float32, copy=True)


def empty_buffer(shapes: Mapping[str, tuple[Sequence[int], str]], shared: bool) -> tuple[Tensor, dict[str, Field]]:
    """Return memory for arrays of given shapes and types, and their places in it.

    Args:
        shapes: shape and dtype of every array by name.
        shared: whether to take memory that other processes can use without a copy.

    Returns:
        (N,) uint8, not initialised, and the places.
    """
    fields, end = {}, 0
    for name, (shape, dtype) in shapes.items():
        fields[name] = Field(end, tuple(shape), dtype)
        end += -(-fields[name].num_bytes // _ALIGNMENT) * _ALIGNMENT
    if not shared:
        return torch.empty(end, dtype=torch.uint8), fields
    # As torch's own collate does in loader processes: a tensor that is shared only when it is sent is copied.
    storage = torch.UntypedStorage._new_shared(end)
    return torch.empty(0, dtype=torch.uint8).set_(storage), fields


def _copy_beside(buffer: Tensor, device: torch.device) -> Tensor:
    """Return a copy on a GPU, made by a stream of its own: it need not wait for the steps that are under way."""
    stream, current = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(stream):
        copy = buffer.to(device, non_blocking=True)
    current.wait_stream(stream)
    copy.record_stream(current)
    return copy


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _make_unit(normals: Tensor) -> Tensor:
    """Make normals (B,3,H,W) unit vectors in place, zero where unknown; return their mask (B,1,H,W)."""
    x, y, z = normals.split(1, dim=1)
    squared_length = (x * x).addcmul_(y, y).addcmul_(z, z)
    mask = (squared_length > MIN_SQUARED_LENGTH) & (squared_length < MAX_SQUARED_LENGTH)
    normals.mul_(squared_length.rsqrt_()).masked_fill_(~mask, 0)
    return mask
