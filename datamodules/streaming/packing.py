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

from datamodules.shards.codecs import IMAGE
from datamodules.streaming.buffers import POOL, Lent, give_back
from geometry.batch import ANY_VALUE, DatasetInfo, GeometryBatch
from geometry.modalities import modality_named

Array = np.ndarray

CAMERA = "camera"
_ALIGNMENT = 64


@dataclass(frozen=True)
class Field:
    """Place of one array in a buffer.

    Attributes:
        offset: number of its first byte.
        shape: its shape.
        dtype: uint8, float16, float32, or int16 for codes.
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
        return buffer[self.offset : self.offset + self.num_bytes].view(getattr(torch, self.dtype)).view(self.shape)


@dataclass(frozen=True)
class PackedBatch:
    """A ``GeometryBatch`` in stored precision, all of it in one piece of memory: one copy brings it anywhere.

    Attributes:
        buffer: (N,) uint8. In a loader process it lies in shared memory, so that it is not copied on its way; it is
            longer then, and lent: whoever receives it copies it, and gives it back (``landed``, ``pin_memory``).
        fields: where in it are image (B,3,H,W) uint8, camera (B,3,3) float32, and modalities by name (B,C,H,W), or
            their codes (B,K,H,W) int16.
        limits: by modality, the smallest and the largest value that counts, as rounded as the stored values are.
        key: sample ids.
        dataset: the data set.
        lent: whose the buffer is; None where it is the batch's own.
    """

    buffer: Tensor
    fields: Mapping[str, Field]
    limits: Mapping[str, tuple[float, float]]
    key: list[str]
    dataset: DatasetInfo
    lent: Lent | None = None

    def landed(self) -> Self:
        """Return the batch in memory of its own."""
        return self if self.lent is None else self._given_back(self._content().clone())

    def _content(self) -> Tensor:
        return self.buffer[: max(_end(field) for field in self.fields.values())]

    def _given_back(self, copy: Tensor) -> Self:
        if self.lent is not None:
            give_back(self.buffer, self.lent)
        return replace(self, buffer=copy, lent=None)

    def to(self, device: torch.device) -> Self:
        """Return the batch on a device. A copy from page-locked memory to a GPU runs beside what the GPU is doing.

        Args:
            device: where to.
        """
        beside = device.type == "cuda" and self.buffer.is_pinned()
        return replace(self, buffer=_copy_beside(self.buffer, device) if beside else self.buffer.to(device))

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory."""
        return self._given_back(self._content().pin_memory())

    def expand(self) -> GeometryBatch:
        """Return the batch as a model sees it, computed where the buffer is and without waiting for the device."""
        return GeometryBatch(
            image=self._float32(IMAGE).mul_(2 / 255).sub_(1),
            targets={
                name: modality_named(name)().restore(self._values(name), self.limits.get(name, ANY_VALUE))
                for name in self.fields
                if name not in (IMAGE, CAMERA)
            },
            key=self.key,
            dataset=self.dataset,
            camera=self._float32(CAMERA),
        )

    def _values(self, name: str) -> Tensor:
        """Return the values of a modality as a float32 copy."""
        stored, coding = self.fields[name].of(self.buffer), modality_named(name).coding
        return coding.decode(stored) if coding and stored.dtype == torch.int16 else self._float32(name)

    def _float32(self, name: str) -> Tensor:
        """Return a float32 copy of an array."""
        return self.fields[name].of(self.buffer).to(torch.float32, copy=True)


def empty_buffer(
    shapes: Mapping[str, tuple[Sequence[int], str]], shared: bool
) -> tuple[Tensor, dict[str, Field], Lent | None]:
    """Return memory for arrays of given shapes and types, and their places in it.

    Args:
        shapes: shape and dtype of every array by name.
        shared: whether to take memory that other processes can use without a copy.

    Returns:
        (N,) uint8, not initialised; the places; and whose memory it is, None where it is the caller's.
    """
    fields, end = {}, 0
    for name, (shape, dtype) in shapes.items():
        fields[name] = Field(end, tuple(shape), dtype)
        end = _end(fields[name])
    if not shared:
        return torch.empty(end, dtype=torch.uint8), fields, None
    buffer, lent = POOL.take(end)
    return buffer, fields, lent


def _end(field: Field) -> int:
    """Return where the next array may begin."""
    return field.offset + -(-field.num_bytes // _ALIGNMENT) * _ALIGNMENT


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
