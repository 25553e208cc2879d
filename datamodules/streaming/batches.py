"""Turns encoded samples into batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from datamodules.shards.codecs import MAX_HEADER_BYTES
from datamodules.shards.files import EncodedSample, decode_sample
from datamodules.shards.manifest import DatasetManifest
from geometry.batch import GeometryBatch
from geometry.errors import InputError

Array = np.ndarray

# A stored vector of about unit length is a normal; anything else, such as zero, is unknown.
MIN_SQUARED_LENGTH, MAX_SQUARED_LENGTH = 0.25, 4.0
# Of an entry of the right size: normals as float64. What claims more is refused before memory is reserved for it.
MAX_BYTES_PER_PIXEL = 24


@dataclass(frozen=True)
class BatchAssembler:
    """Decodes samples of one data set into a ``GeometryBatch``.

    Attributes:
        name: name of the data set in the batch.
        manifest: description of the data set.
        normals: whether to load normals.
    """

    name: str
    manifest: DatasetManifest
    normals: bool

    @property
    def roles(self) -> tuple[str, ...]:
        """Entries that a sample must have."""
        return ("image", "depth", "normals") if self.normals else ("image", "depth")

    def assemble(self, samples: Sequence[EncodedSample], flips: Sequence[bool]) -> tuple[GeometryBatch, list[str]]:
        """Return a batch, and what is wrong with the samples in it that cannot be used.

        A sample cannot be used if its shard is damaged, or an entry cannot be decoded, has another size than
        ``dataset.json`` says, or its depth holds NaN. In its place is a blank image without a valid pixel: nothing is
        learned from it, and batches, order and the position in the data stay as they are.

        Args:
            samples: undecoded samples.
            flips: which of them to mirror left to right (image, depth, masks and normals alike).

        Returns:
            The batch, with normals if they are asked for; and one sentence per unusable sample, naming it.
        """
        height, width = self.manifest.image_size
        image = torch.empty(len(samples), 3, height, width)
        depth = torch.empty(len(samples), 1, height, width)
        normals = torch.empty(len(samples), 3, height, width) if self.normals else torch.empty(0)
        normals_mask = torch.empty(len(samples), 1, height, width, dtype=torch.bool) if self.normals else torch.empty(0)
        problems = []
        for index, (sample, flip) in enumerate(zip(samples, flips, strict=True)):
            try:
                decoded = self._decode(sample)
            except InputError as error:
                problems.append(str(error))
                decoded = self._blank()
            _write_image(image[index], decoded["image"], flip)
            _write_array(depth[index, 0], decoded["depth"], flip)
            if self.normals:
                _write_array(normals[index], decoded["normals"], flip)
                normals_mask[index] = _make_unit(normals[index])
                if flip:
                    normals[index, 0].neg_()
        # Stored depth was rounded to float16; round the planes alike, or pixels on a plane would fall outside.
        near, far = float(np.float16(self.manifest.near_plane_m)), float(np.float16(self.manifest.far_plane_m))
        valid_mask = (depth >= near) & (depth <= far) & (depth > 0)
        batch: GeometryBatch = {
            "image": image,
            "depth": depth.masked_fill_(~valid_mask, 0),
            "valid_mask": valid_mask,
            "key": [sample.key for sample in samples],
            "dataset": self.name,
        }
        if self.normals:
            batch["normals"], batch["normals_mask"] = normals, normals_mask
        return batch, problems

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.manifest.image_size
        shapes: dict[str, tuple[int, ...]] = {"image": (*size, 3), "depth": size, "normals": (3, *size)}
        return {role: shapes[role] for role in self.roles}

    def _blank(self) -> dict[str, Array]:
        shapes = self._shapes
        grey = {"image": np.full(shapes.pop("image"), 128, np.uint8)}
        return grey | {role: np.zeros(shape, np.float32) for role, shape in shapes.items()}

    def _decode(self, sample: EncodedSample) -> dict[str, Array]:
        if sample.problem:
            raise InputError(sample.problem)
        expected = self._shapes
        max_bytes = MAX_BYTES_PER_PIXEL * math.prod(self.manifest.image_size) + MAX_HEADER_BYTES
        decoded = decode_sample(sample, self.roles, max_bytes)
        where = f"{sample.shard}: sample {sample.key!r}"
        for role, array in decoded.items():
            if array.shape != expected[role]:
                raise InputError(
                    f"{where}: {role} has the shape {array.shape}, dataset.json asks for {expected[role]}. "
                    "Prepare the data set again."
                )
        # One NaN or infinity makes the sum NaN or infinite, too.
        if not np.isfinite(decoded["depth"].sum(dtype=np.float64)):
            raise InputError(f"{where}: depth holds NaN or infinite numbers; unknown is 0. Prepare the data set again.")
        return decoded


def _write_image(target: Tensor, image: Array, flip: bool) -> None:
    """Write (H,W,3) uint8 into (3,H,W) float32 as numbers from -1 to 1."""
    for channel, plane in zip(target, cv2.split(cv2.flip(image, 1) if flip else image), strict=True):
        channel.copy_(torch.from_numpy(plane)).mul_(2 / 255).sub_(1)


def _write_array(target: Tensor, array: Array, flip: bool) -> None:
    """Write an array whose last axis runs from left to right into a float32 tensor of the same shape."""
    if flip:
        array = np.ascontiguousarray(array[..., ::-1])
    target.copy_(torch.from_numpy(array))


def _make_unit(normals: Tensor) -> Tensor:
    """Make normals (3,H,W) unit vectors in place, zero where unknown; return their mask (1,H,W)."""
    x, y, z = normals
    squared_length = (x * x).addcmul_(y, y).addcmul_(z, z)
    mask = (squared_length > MIN_SQUARED_LENGTH) & (squared_length < MAX_SQUARED_LENGTH)
    normals.mul_(squared_length.rsqrt_()).masked_fill_(~mask, 0)
    return mask[None]
