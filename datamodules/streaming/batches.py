"""Turns encoded samples into batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import get_worker_info

from datamodules.shards.codecs import IMAGE, INFO
from datamodules.shards.files import EncodedSample, decode_sample
from datamodules.shards.manifest import MAX_BYTES_PER_PIXEL, DatasetManifest
from datamodules.streaming.augmentation import Change
from datamodules.streaming.cameras import read_camera
from datamodules.streaming.packing import CAMERA, PackedBatch, empty_buffer
from geometry.batch import DatasetInfo
from geometry.errors import InputError
from geometry.modalities import modality_named
from geometry.modalities.stored import rounded_limits

Array = np.ndarray

_MAX_NPY_HEADER_BYTES = 4096


@dataclass(frozen=True)
class BatchAssembler:
    """Decodes samples of one data set into a batch.

    Attributes:
        name: name of the data set in the batch.
        manifest: description of the data set.
        modalities: names of the modalities to load.
    """

    name: str
    manifest: DatasetManifest
    modalities: tuple[str, ...]

    @property
    def roles(self) -> tuple[str, ...]:
        """Entries to read."""
        return (IMAGE, *self.modalities, INFO)

    def assemble(
        self, samples: Sequence[EncodedSample], flips: Sequence[bool], changes: Sequence[Change] | None = None
    ) -> tuple[PackedBatch, list[str]]:
        """Return a batch, and what is wrong with the samples in it that cannot be used.

        A sample cannot be used if its shard is damaged, or an entry cannot be decoded, has another size than
        ``dataset.json`` says, or it holds NaN where its modality does not allow it. In its place is a blank image
        without a valid pixel: nothing is learned from it, and batches, order and the position in the data stay as they
        are.

        Args:
            samples: undecoded samples.
            flips: which of them to mirror left to right (image, targets, masks and camera alike).
            changes: what else to change in each, before it is mirrored; None is nothing.

        Returns:
            The batch, with the modalities that are asked for; and one sentence per unusable sample, naming it.
        """
        problems, decoded = [], []
        for sample in samples:
            try:
                decoded.append(self._decode(sample))
            except InputError as error:
                problems.append(str(error))
                decoded.append(self._blank())
        if changes is not None:
            pairs = zip(changes, decoded, strict=True)
            decoded = [change.apply(arrays, self.modalities) for change, arrays in pairs]
        size = self.manifest.image_size
        shapes: dict[str, tuple[Sequence[int], str]] = {IMAGE: ((len(samples), 3, *size), "uint8")}
        for name in self.modalities:
            channels = modality_named(name).num_channels
            shapes[name] = ((len(samples), channels, *size), _common_type([arrays[name] for arrays in decoded]))
        shapes[CAMERA] = ((len(samples), 3, 3), "float32")
        buffer, fields = empty_buffer(shapes, shared=get_worker_info() is not None)
        places = {role: field.of(buffer) for role, field in fields.items()}
        for index, (arrays, flip) in enumerate(zip(decoded, flips, strict=True)):
            _write_image(places[IMAGE][index].numpy(), arrays[IMAGE], flip)
            for name in self.modalities:
                place = places[name][index]
                _write_array(place.numpy().reshape(arrays[name].shape), arrays[name], flip)
                if flip:
                    modality_named(name)().mirror_(place)
            places[CAMERA][index] = read_camera(arrays.get(INFO, {}), size[1], flip)
            if changes is not None:
                places[CAMERA][index] @= torch.from_numpy(changes[index].pixel_from_cropped(*size, flip))
        info = DatasetInfo(self.name, self.manifest.ranges)
        return PackedBatch(buffer, fields, self._limits, [sample.key for sample in samples], info), problems

    @property
    def _limits(self) -> dict[str, tuple[float, float]]:
        return {name: rounded_limits(limits) for name, limits in self.manifest.ranges.items()}

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        size = self.manifest.image_size
        return {IMAGE: (*size, 3), **{name: modality_named(name).stored_shape(*size) for name in self.modalities}}

    def _blank(self) -> dict[str, Any]:
        shapes = self._shapes
        grey = {IMAGE: np.full(shapes.pop(IMAGE), 128, np.uint8)}
        values = {name: np.full(shape, modality_named(name).unknown, np.float16) for name, shape in shapes.items()}
        return grey | values

    def _decode(self, sample: EncodedSample) -> dict[str, Any]:
        if sample.problem:
            raise InputError(sample.problem)
        expected = self._shapes
        max_bytes = MAX_BYTES_PER_PIXEL * math.prod(self.manifest.image_size) + _MAX_NPY_HEADER_BYTES
        decoded = decode_sample(sample, self.roles, max_bytes)
        where = f"{sample.shard}: sample {sample.key!r}"
        for role, shape in expected.items():
            if decoded[role].shape != shape:
                raise InputError(
                    f"{where}: {role} has the shape {decoded[role].shape}, dataset.json asks for {shape}. "
                    "Prepare the data set again."
                )
        for name in self.modalities:
            if not modality_named(name).may_store_nan and not _is_finite(decoded[name]):
                raise InputError(
                    f"{where}: {name} holds NaN or infinite numbers; unknown is 0. Prepare the data set again."
                )
        return decoded


def _common_type(arrays: Sequence[Array]) -> str:
    """Return the type in which values of a batch travel: float16 if all samples are stored so, else float32."""
    return "float16" if all(array.dtype == np.float16 for array in arrays) else "float32"


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
