"""Turns encoded samples into batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch.utils.data import get_worker_info

from datamodules.shards.files import EncodedSample, decode_sample
from datamodules.shards.manifest import MAX_BYTES_PER_PIXEL, DatasetManifest
from datamodules.streaming.packing import PackedBatch, empty_buffer
from geometry.errors import InputError

Array = np.ndarray

_MAX_NPY_HEADER_BYTES = 4096


@dataclass(frozen=True)
class BatchAssembler:
    """Decodes samples of one data set into a batch.

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

    def assemble(self, samples: Sequence[EncodedSample], flips: Sequence[bool]) -> tuple[PackedBatch, list[str]]:
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
        problems, decoded = [], []
        for sample in samples:
            try:
                decoded.append(self._decode(sample))
            except InputError as error:
                problems.append(str(error))
                decoded.append(self._blank())
        height, width = self.manifest.image_size
        shapes = {
            role: ((len(samples), 1 if role == "depth" else 3, height, width), _common_type(role, decoded))
            for role in self.roles
        }
        buffer, fields = empty_buffer(shapes, shared=get_worker_info() is not None)
        targets = {role: field.of(buffer).numpy() for role, field in fields.items()}
        for index, (arrays, flip) in enumerate(zip(decoded, flips, strict=True)):
            _write_image(targets["image"][index], arrays["image"], flip)
            _write_array(targets["depth"][index, 0], arrays["depth"], flip)
            if self.normals:
                _write_array(targets["normals"][index], arrays["normals"], flip)
                if flip:
                    np.negative(targets["normals"][index, 0], out=targets["normals"][index, 0])
        # Stored depth was rounded to float16; round the planes alike, or pixels on a plane would fall outside.
        near, far = float(np.float16(self.manifest.near_plane_m)), float(np.float16(self.manifest.far_plane_m))
        return PackedBatch(buffer, fields, near, far, [sample.key for sample in samples], self.name), problems

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.manifest.image_size
        shapes: dict[str, tuple[int, ...]] = {"image": (*size, 3), "depth": size, "normals": (3, *size)}
        return {role: shapes[role] for role in self.roles}

    def _blank(self) -> dict[str, Array]:
        shapes = self._shapes
        grey = {"image": np.full(shapes.pop("image"), 128, np.uint8)}
        return grey | {role: np.zeros(shape, np.float16) for role, shape in shapes.items()}

    def _decode(self, sample: EncodedSample) -> dict[str, Array]:
        if sample.problem:
            raise InputError(sample.problem)
        expected = self._shapes
        max_bytes = MAX_BYTES_PER_PIXEL * math.prod(self.manifest.image_size) + _MAX_NPY_HEADER_BYTES
        decoded = decode_sample(sample, self.roles, max_bytes)
        where = f"{sample.shard}: sample {sample.key!r}"
        for role, array in decoded.items():
            if array.shape != expected[role]:
                raise InputError(
                    f"{where}: {role} has the shape {array.shape}, dataset.json asks for {expected[role]}. "
                    "Prepare the data set again."
                )
        if not _is_finite(decoded["depth"]):
            raise InputError(f"{where}: depth holds NaN or infinite numbers; unknown is 0. Prepare the data set again.")
        return decoded


def _common_type(role: str, decoded: Sequence[dict[str, Array]]) -> str:
    """Return the type in which an entry of a batch travels: float16 if all samples are stored so, else float32."""
    if role == "image":
        return "uint8"
    return "float16" if all(sample[role].dtype == np.float16 for sample in decoded) else "float32"


def _is_finite(array: Array) -> bool:
    """Say whether an array of floats holds neither NaN nor infinity."""
    if array.dtype == np.float16:
        # By the bits, as processors do not compute with float16: an exponent of all ones is neither.
        return bool((array.view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00)
    return bool(np.isfinite(array.sum(dtype=np.float64)))  # one such number makes the sum NaN or infinite, too


def _write_image(target: Array, image: Array, flip: bool) -> None:
    """Write (H,W,3) uint8 into (3,H,W)."""
    cv2.split(cv2.flip(image, 1) if flip else image, list(target))


def _write_array(target: Array, array: Array, flip: bool) -> None:
    """Write an array whose last axis runs from left to right into one of the same shape."""
    if not flip or array.dtype != np.float16 or target.dtype != np.float16:
        np.copyto(target, array[..., ::-1] if flip else array, casting="same_kind")
        return
    rows = (-1, array.shape[-1])
    cv2.flip(array.view(np.int16).reshape(rows), 1, target.view(np.int16).reshape(rows))  # as whole numbers: faster
