"""Checks a prepared data set: every shard against ``dataset.json``, every sample against the format."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from tqdm import tqdm

from datamodules.shards.codecs import IMAGE, INFO
from datamodules.shards.files import decode_sample, scan_shard
from datamodules.shards.manifest import (
    CHUNK_BYTES,
    MAX_BYTES_PER_PIXEL,
    Dataset,
    DatasetManifest,
    ShardInfo,
    open_url,
    read_dataset,
)
from datamodules.untrusted.text import shorten
from geometry.errors import InputError
from geometry.files.json_text import is_finite_number
from geometry.files.limits import MAX_JSON_BYTES
from geometry.modalities import modality_named, registered
from geometry.modalities.stored import rounded_limits

Array = np.ndarray
DEFAULT_COMPARED = 64


@dataclass
class ModalityCheck:
    """Findings about the values of one modality in one split.

    Attributes:
        mean_share: mean share of pixels with a known value.
        minimum: smallest number; None if none is known or counted.
        maximum: largest number.
        differences: of every sample compared, the median difference from the modality that it is compared with.
    """

    mean_share: float = 0.0
    minimum: float | None = None
    maximum: float | None = None
    differences: list[float] = field(default_factory=list)

    @property
    def difference(self) -> float | None:
        """Median over the samples compared; None if there were none."""
        return float(np.median(self.differences)) if self.differences else None

    def add(self, share: float, numbers: Array) -> None:
        """Add a sample's share of known pixels and its numbers (N,)."""
        self.mean_share += share
        if numbers.size:
            low, high = float(numbers.min()), float(numbers.max())
            self.minimum = low if self.minimum is None else min(self.minimum, low)
            self.maximum = high if self.maximum is None else max(self.maximum, high)


@dataclass
class SplitCheck:
    """Findings about one split.

    Attributes:
        split: its name.
        shards: number of shards.
        modalities: findings by modality.
        samples: number of samples found.
        problems: one sentence per problem, naming shard and sample; empty if all is well.
    """

    split: str
    shards: int
    modalities: dict[str, ModalityCheck]
    samples: int = 0
    problems: list[str] = field(default_factory=list)


def comparable() -> dict[str, str]:
    """Return the modalities whose values can be compared with those of another one, and that one."""
    return {name: kind.compared_with for name, kind in registered().items() if kind.compared_with}


def check_dataset(
    path: str | Path, progress: bool = True, compare: Mapping[str, int] | int = DEFAULT_COMPARED
) -> list[SplitCheck]:
    """Check a prepared data set to its last byte.

    Args:
        path: folder or URL of the data set.
        progress: show a progress bar on stderr.
        compare: number of samples per split, at even distances, whose values are compared with those of another
            modality where that is possible; one number for all, or by modality.

    Returns:
        The findings about every split.

    Raises:
        InputError: there is no usable ``dataset.json``.
    """
    dataset = read_dataset(path)
    manifest = dataset.manifest
    counts = dict.fromkeys(comparable(), compare) if isinstance(compare, int) else compare
    checks = []
    for split, shards in manifest.splits.items():
        check = SplitCheck(split, len(shards), {name: ModalityCheck() for name in manifest.modalities})
        keys: set[str] = set()
        total = manifest.num_samples(split)
        strides = {name: max(1, -(-total // count)) for name, count in counts.items() if count > 0}
        with tqdm(total=total, desc=f"check {split}", unit="sample", disable=not progress) as bar:
            for shard in shards:
                check.problems.extend(_check_shard(dataset, shard, check, keys, bar, strides))
        for found in check.modalities.values():
            found.mean_share /= max(check.samples, 1)
        checks.append(check)
    return checks


def _check_shard(
    dataset: Dataset,
    shard: ShardInfo,
    check: SplitCheck,
    keys: set[str],
    bar: Any,  # noqa: ANN401
    strides: Mapping[str, int],
) -> Iterator[str]:
    url, size = dataset.shard_url(shard), dataset.manifest.image_size
    found = 0
    try:
        with open_url(url) as stream:
            checksum = _sha256(stream, dataset.max_shard_bytes(shard))
        if checksum != shard.sha256:
            yield f"{url}: sha256 is {checksum}, dataset.json says {shard.sha256}"
        roles = (*dataset.manifest.entries, INFO)
        for sample in scan_shard(url, roles):
            if sample.problem:
                raise InputError(sample.problem)
            found += 1
            bar.update()
            if sample.key in keys:
                yield f"{url}: sample {sample.key!r} exists twice"
            keys.add(sample.key)
            decoded = decode_sample(sample, roles, MAX_BYTES_PER_PIXEL * math.prod(size) + MAX_JSON_BYTES)
            problems = list(_check_sample(decoded, dataset.manifest, check))
            if not problems:
                number = check.samples + found - 1
                problems.extend(_compare(decoded, check, [name for name in strides if number % strides[name] == 0]))
            for problem in problems:
                yield f"{url}: sample {sample.key!r}: {problem}"
    except (InputError, OSError) as error:
        yield str(error) if url in str(error) else f"{url}: {error}"
    check.samples += found
    if found != shard.samples:
        yield f"{url}: holds {found} readable samples, dataset.json says {shard.samples}"


def _check_sample(sample: dict[str, Any], manifest: DatasetManifest, check: SplitCheck) -> Iterator[str]:
    size = manifest.image_size
    if sample[IMAGE].shape[:2] != size:
        yield f"{IMAGE} has {sample[IMAGE].shape[:2]} pixels, dataset.json says {size}"
    for name, found in check.modalities.items():
        modality = modality_named(name)()
        stored, shape = sample[name], modality.stored_shape(*size)
        if stored.shape != shape:
            yield f"{name} has the shape {stored.shape}, dataset.json asks for {shape}"
            continue
        values = stored.astype(np.float32)
        limits = rounded_limits(manifest.ranges.get(name, modality.possible_values))
        problems = list(modality.problems(values, limits))
        yield from problems
        known = modality.is_known(values)
        found.add(np.count_nonzero(known) / known.size, np.empty(0) if problems else modality.numbers(values, known))
    info = sample.get(INFO, {})  # the camera may be unknown
    camera = info.get("camera_from_pixel")
    if camera is not None and not _is_camera(camera):
        yield f"camera_from_pixel is {shorten(repr(camera))}, not a 3x3 matrix of numbers"
    pixel_center = info.get("pixel_center")
    if pixel_center is not None and not is_finite_number(pixel_center):
        yield f"pixel_center is {shorten(repr(pixel_center))}, not a number"


def _compare(sample: dict[str, Any], check: SplitCheck, names: list[str]) -> Iterator[str]:
    """Compare modalities of a sample without other problems with those that they can be compared with."""
    info = sample.get(INFO, {})
    camera, pixel_center = info.get("camera_from_pixel"), info.get("pixel_center")
    for name in names:
        is_there = {name, comparable()[name]} <= set(check.modalities)
        if not is_there or camera is None or pixel_center is None:
            continue
        difference, problem = modality_named(name)().compare(sample, camera, pixel_center)
        if difference is not None:
            check.modalities[name].differences.append(difference)
        if problem:
            yield problem


def _sha256(stream: BinaryIO, max_bytes: int) -> str:
    checksum, num_bytes = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK_BYTES):
        checksum.update(chunk)
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise OSError(f"it has more than {max_bytes} bytes, which no such shard can have")
    return checksum.hexdigest()


def _is_camera(value: object) -> bool:
    rows = value if isinstance(value, list) else []
    return len(rows) == 3 and all(
        isinstance(row, list) and len(row) == 3 and all(map(is_finite_number, row)) for row in rows
    )
