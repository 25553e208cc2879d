"""Turns encoded samples into batches."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from datamodules.shards.codecs import CODE_TYPE, IMAGE, INFO
from datamodules.shards.files import EncodedSample, decode_sample, without_codes
from datamodules.shards.manifest import MAX_BYTES_PER_PIXEL, DatasetManifest
from datamodules.streaming.augmentation import Change
from datamodules.streaming.packing import CAMERA, PackedBatch, empty_buffer
from geometry.batch import DatasetInfo
from geometry.camera import flip_camera, recenter_camera
from geometry.errors import InputError
from geometry.files.limits import MAX_NPY_HEADER_BYTES
from geometry.modalities import Modality, modality_named
from geometry.modalities.codings import Coding
from geometry.modalities.stored import rounded_limits

Array = np.ndarray
_UNKNOWN_CAMERA = torch.full((3, 3), torch.nan)


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
                    _kept_as(name, np.dtype(fields[name].dtype)).mirror_(place)
            places[CAMERA][index] = _read_camera(arrays.get(INFO, {}), size[1], flip)
            if changes is not None:
                places[CAMERA][index] @= torch.from_numpy(changes[index].pixel_from_cropped(*size, flip))
        info = DatasetInfo(self.name, self.manifest.ranges)
        limits = {name: rounded_limits(limits) for name, limits in self.manifest.ranges.items()}
        return PackedBatch(buffer, fields, limits, [sample.key for sample in samples], info, lent), problems

    def _blank(self) -> dict[str, Any]:
        size = self.manifest.image_size
        blank: dict[str, Any] = {IMAGE: np.full((*size, 3), 128, np.uint8)}
        for name in self.modalities:
            dtype = CODE_TYPE if name in self.manifest.codings else np.dtype(np.float16)
            blank[name] = np.full(_kept_as(name, dtype).stored_shape(*size), _kept_as(name, dtype).unknown, dtype)
        return blank

    def _decode(self, sample: EncodedSample) -> dict[str, Any]:
        if sample.problem:
            raise InputError(sample.problem)
        size = self.manifest.image_size
        max_bytes = MAX_BYTES_PER_PIXEL * math.prod(size) + MAX_NPY_HEADER_BYTES
        decoded = decode_sample(sample, self.roles, max_bytes, keep_codes=True)
        where = f"{sample.shard}: sample {sample.key!r}"
        for role in (IMAGE, *self.modalities):
            shape = (*size, 3) if role == IMAGE else _kept_as(role, decoded[role].dtype).stored_shape(*size)
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


def _read_camera(info: Mapping[str, Any], width: int, flip: bool) -> Tensor:
    """Return the camera of a stored image, for pixels whose first has its centre at (0.5, 0.5).

    Args:
        info: the sample's description; what is no camera counts as an unknown one.
        width: of the image in pixels.
        flip: whether the image is mirrored left to right.

    Returns:
        (3,3) float32; NaN where the camera is unknown.
    """
    camera, pixel_center = info.get("camera_from_pixel"), info.get("pixel_center")
    try:
        matrix = torch.tensor(camera, dtype=torch.float64)
        centered = recenter_camera(matrix, float(pixel_center), 0.5)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return _UNKNOWN_CAMERA
    if matrix.shape != (3, 3) or not bool(matrix.isfinite().all()):
        return _UNKNOWN_CAMERA
    return (flip_camera(centered, width) if flip else centered).float()


def _common_type(arrays: Sequence[Array]) -> str:
    """Return the type in which values of a batch travel: int16 if all are codes, float32 if any is stored wider."""
    if all(array.dtype == CODE_TYPE for array in arrays):
        return CODE_TYPE.name
    return "float16" if all(array.dtype in (np.float16, CODE_TYPE) for array in arrays) else "float32"


def _kept_as(name: str, dtype: np.dtype) -> Coding | Modality:
    """Return what knows numbers of a type that stand for values of a modality: its coding if they are codes."""
    modality = modality_named(name)()
    return modality.coding if modality.coding and dtype == CODE_TYPE else modality


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
