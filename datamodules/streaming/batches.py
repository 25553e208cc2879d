"""Turns encoded samples into batches."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import get_worker_info

from datamodules.shards.codecs import CODE_TYPE, IMAGE, INFO
from datamodules.shards.files import EncodedSample, decode_sample, without_codes
from datamodules.shards.manifest import MAX_BYTES_PER_PIXEL, DatasetManifest
from datamodules.streaming.augmentation import Change
from datamodules.streaming.cameras import read_camera
from datamodules.streaming.packing import CAMERA, PackedBatch, empty_buffer
from geometry.batch import DatasetInfo
from geometry.errors import InputError
from geometry.files.limits import MAX_NPY_HEADER_BYTES
from geometry.modalities import modality_named
from geometry.modalities.stored import rounded_limits

Array = np.ndarray


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
            kind = _common_type([arrays[name] for arrays in decoded])
            if kind != CODE_TYPE.name:
                decoded = [{**arrays, name: without_codes(name, arrays[name])} for arrays in decoded]
            values = (modality_named(name).num_channels, *size)
            shapes[name] = ((len(samples), *(decoded[0][name].shape if kind == CODE_TYPE.name else values)), kind)
        shapes[CAMERA] = ((len(samples), 3, 3), "float32")
        buffer, fields, lent = empty_buffer(shapes, shared=get_worker_info() is not None)
        places = {role: field.of(buffer) for role, field in fields.items()}
        for index, (arrays, flip) in enumerate(zip(decoded, flips, strict=True)):
            _write_image(places[IMAGE][index].numpy(), arrays[IMAGE], flip)
            for name in self.modalities:
                place = places[name][index]
                _write_array(place.numpy().reshape(arrays[name].shape), arrays[name], flip)
                if flip:
                    _mirror_(name, place)
            places[CAMERA][index] = read_camera(arrays.get(INFO, {}), size[1], flip)
            if changes is not None:
                places[CAMERA][index] @= torch.from_numpy(changes[index].pixel_from_cropped(*size, flip))
        info = DatasetInfo(self.name, self.manifest.ranges)
        keys = [sample.key for sample in samples]
        return PackedBatch(buffer, fields, self._limits, keys, info, lent), problems

    @property
    def _limits(self) -> dict[str, tuple[float, float]]:
        return {name: rounded_limits(limits) for name, limits in self.manifest.ranges.items()}

    def _shape(self, role: str, dtype: np.dtype) -> tuple[int, ...]:
        """Return the shape that an entry must have."""
        size = self.manifest.image_size
        if role == IMAGE:
            return (*size, 3)
        coding = modality_named(role).coding
        return coding.stored_shape(*size) if coding and dtype == CODE_TYPE else modality_named(role).stored_shape(*size)

    def _blank(self) -> dict[str, Any]:
        size = self.manifest.image_size
        blank: dict[str, Any] = {IMAGE: np.full((*size, 3), 128, np.uint8)}
        for name in self.modalities:
            modality = modality_named(name)
            coding = modality.coding if name in self.manifest.codings else None
            stored = coding or modality
            blank[name] = np.full(stored.stored_shape(*size), stored.unknown, CODE_TYPE if coding else np.float16)
        return blank

    def _decode(self, sample: EncodedSample) -> dict[str, Any]:
        if sample.problem:
            raise InputError(sample.problem)
        max_bytes = MAX_BYTES_PER_PIXEL * math.prod(self.manifest.image_size) + MAX_NPY_HEADER_BYTES
        decoded = decode_sample(sample, self.roles, max_bytes, keep_codes=True)
        where = f"{sample.shard}: sample {sample.key!r}"
        for role in (IMAGE, *self.modalities):
            shape = self._shape(role, decoded[role].dtype)
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
    """Return the type in which values of a batch travel: int16 if all are codes, float32 if any is stored wider."""
    if all(array.dtype == CODE_TYPE for array in arrays):
        return CODE_TYPE.name
    return "float16" if all(array.dtype in (np.float16, CODE_TYPE) for array in arrays) else "float32"


def _mirror_(name: str, place: torch.Tensor) -> None:
    """Change in place what a flip does to values of a modality, or to their codes, beside moving them."""
    modality = modality_named(name)
    if modality.coding and place.dtype == torch.int16:
        modality.coding.mirror_(place)
    else:
        modality().mirror_(place)


def _is_finite(array: Array) -> bool:
    """Say whether an array of floats holds neither NaN nor infinity."""
    if array.dtype == CODE_TYPE:
        return True
    if array.dtype == np.float16:
        # By the bits, as processors do not compute with float16: an exponent of all ones is neither.
        return bool((array.view(np.uint16) & 0x7FFF).max(initial=0) < 0x7C00)
    return bool(np.isfinite(array.sum(dtype=np.float64)))  # one such number makes the sum NaN or infinite, too


def _write_image(target: Array, image: Array, flip: bool) -> None:
    """Write (H,W,3) uint8 into (3,H,W)."""
    cv2.split(cv2.flip(image, 1) if flip else image, list(target))


def _write_array(target: Array, array: Array, flip: bool) -> None:
    """Write an array whose last axis runs from left to right into one of the same shape."""
    if not flip or array.dtype.itemsize != 2 or target.dtype != array.dtype:
        np.copyto(target, array[..., ::-1] if flip else array, casting="same_kind")
        return
    rows = (-1, array.shape[-1])
    cv2.flip(array.view(np.int16).reshape(rows), 1, target.view(np.int16).reshape(rows))  # as whole numbers: faster
