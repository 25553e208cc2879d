"""From raw frames to shards, the same way for every data set.

The content of a shard is a pure function of the sorted list of frames, the options and the shard's number. The number
of worker processes changes nothing.
"""

import hashlib
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

from datamodules.codecs import encode_array, encode_image, encode_json
from datamodules.manifest import FILE_NAME, NAME_PATTERN, DatasetManifest, read_dataset
from datamodules.processes import process_pool
from datamodules.raw import Frame, RawDataset
from datamodules.shards import EncodedSample, write_shard
from geometry.errors import InputError

Array = np.ndarray


@dataclass(frozen=True)
class ShardOptions:
    """How samples are stored.

    Attributes:
        samples_per_shard: samples in every shard but the last of a split.
        image_format: "jpg" or "png".
        image_quality: JPEG quality from 1 to 100.
        seed: seed of the order in which training samples are dealt to shards.
    """

    samples_per_shard: int = 256
    image_format: str = "jpg"
    image_quality: int = 95
    seed: int = 0


@dataclass(frozen=True)
class SplitSummary:
    """What was written for one split; counters are over samples."""

    split: str
    samples: int
    shards: int
    megabytes: float
    mean_valid_share: float
    depth_range_m: tuple[float, float]
    counts: dict[str, int]


def prepare_dataset(
    raw: RawDataset,
    out: str | Path,
    options: ShardOptions = ShardOptions(),
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
    report: Callable[[str], None] = print,
) -> list[SplitSummary]:
    """Prepare a raw data set into shards and ``dataset.json``.

    Args:
        raw: the raw data set.
        out: folder to write into; made if it is missing.
        options: how samples are stored.
        workers: number of processes that read and encode frames; the result does not depend on it.
        overwrite: replace a data set that is already there.
        progress: show a progress bar on stderr.
        report: receives the notices, one line each.

    Returns:
        A summary of every split.

    Raises:
        InputError: there is nothing to prepare, a frame cannot be used, or a data set is already there.
    """
    _check_options(raw, options)
    folder = Path(out)
    _make_room(folder, overwrite)
    frames = raw.list_frames()
    for notice in frames.notices:
        report(notice)
    splits, summaries = {}, []
    for split, members in frames.splits.items():
        ordered = shard_order(members, options.seed) if split == "train" else list(members)
        encoded = encode_frames(raw, ordered, options, workers)
        with tqdm(total=len(ordered), desc=f"{raw.name} {split}", unit="frame", disable=not progress) as bar:
            tally = _Tally(split)
            stream = tally.watch(encoded, bar)
            sizes = _shard_sizes(len(ordered), options.samples_per_shard)
            splits[split] = [
                write_shard(folder, f"{split}/{raw.name}-{split}-{index:06d}.tar", islice(stream, size))
                for index, size in enumerate(sizes)
            ]
        summaries.append(tally.summary(len(sizes)))
    manifest = DatasetManifest(
        name=raw.name,
        image_size=raw.image_size,
        near_plane_m=raw.near_plane_m,
        far_plane_m=raw.far_plane_m,
        entries=("image", "depth", "normals") if raw.has_normals else ("image", "depth"),
        splits=splits,
        options={**raw.options(), **vars(options)},
    )
    manifest.write(folder)
    return summaries


def shard_order(frames: Sequence[Any], seed: int) -> list[Any]:
    """Return training frames in the order in which they are stored: every shard becomes a random subset.

    The order follows from the keys and the seed alone, on every machine and with every version of NumPy.

    Args:
        frames: frames with a ``key``.
        seed: any integer.

    Returns:
        The same frames, shuffled.
    """
    return sorted(frames, key=lambda frame: hashlib.sha256(f"{seed}/{frame.key}".encode()).digest())


def encode_frames(
    raw: RawDataset, frames: Sequence[Any], options: ShardOptions, workers: int
) -> Iterator[tuple[EncodedSample, dict[str, Any]]]:
    """Yield frames as encoded samples with their descriptions, in order, with a bounded number in memory.

    Args:
        raw: the raw data set.
        frames: frames to load.
        options: how samples are stored.
        workers: number of processes; 1 works in this one.

    Yields:
        Encoded sample and its description, for every frame.
    """
    encode = partial(_load_and_encode, raw, options)
    if workers <= 1:
        with _one_thread():
            yield from map(encode, frames)
        return
    with process_pool(min(workers, len(frames)), _use_one_thread) as pool:
        pending: deque[Future[tuple[EncodedSample, dict[str, Any]]]] = deque()
        try:
            for frame in frames:
                pending.append(pool.submit(encode, frame))
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _load_and_encode(raw: RawDataset, options: ShardOptions, frame: Frame) -> tuple[EncodedSample, dict[str, Any]]:
    sample = raw.load(frame)
    size = sample.depth.shape
    assert sample.image.shape[:2] == size == tuple(raw.image_size), f"{frame.key}: wrong size"
    info = {
        **sample.info,
        **_statistics(sample.depth),
        "camera_from_pixel": _as_lists(sample.camera_from_pixel),
        "pixel_center": sample.pixel_center,
        "image_size": list(size),
    }
    image_entry = f"image.{options.image_format}"
    entries = {image_entry: encode_image(sample.image, options.image_format, options.image_quality)}
    entries["depth.blosc"] = encode_array(sample.depth.astype(np.float16))
    if sample.normals is not None:
        info["normals_share"] = round(float((sample.normals != 0).any(axis=0).mean()), 6)
        entries["normals.blosc"] = encode_array(sample.normals.astype(np.float16))
    entries["json"] = encode_json(info)
    return EncodedSample(frame.key, "", entries), info


def _as_lists(camera: Array | None) -> list[list[float]] | None:
    return None if camera is None else np.asarray(camera, np.float64).tolist()


def _statistics(depth: Array) -> dict[str, Any]:
    """Return the share of valid pixels and, in metres, the range and outer quantiles of their depth."""
    valid = depth[depth > 0]
    names = ("depth_min_m", "depth_q02_m", "depth_q98_m", "depth_max_m")
    quantiles = np.quantile(valid, (0, 0.02, 0.98, 1)) if valid.size else (None,) * 4
    values = {
        name: None if value is None else float(f"{value:.6g}") for name, value in zip(names, quantiles, strict=True)
    }
    return {"valid_share": round(valid.size / depth.size, 6), **values}


class _Tally:
    """Adds up a split's samples while they stream past."""

    def __init__(self, split: str) -> None:
        self.split, self.samples, self.num_bytes, self.valid_share = split, 0, 0, 0.0
        self.nearest_m, self.farthest_m = float("inf"), 0.0
        self.counts: Counter[str] = Counter()

    def watch(self, encoded: Iterable[tuple[EncodedSample, dict[str, Any]]], bar: Any) -> Iterator[EncodedSample]:  # noqa: ANN401
        for sample, info in encoded:
            self.samples += 1
            self.num_bytes += sum(map(len, sample.entries.values()))
            self.valid_share += info["valid_share"]
            if info["depth_min_m"] is not None:
                self.nearest_m = min(self.nearest_m, info["depth_min_m"])
                self.farthest_m = max(self.farthest_m, info["depth_max_m"])
            self.counts.update(f"{name} {info[name]}" for name in ("camera", "normals") if name in info)
            bar.update()
            yield sample

    def summary(self, shards: int) -> SplitSummary:
        share = self.valid_share / max(self.samples, 1)
        depth_range_m = (self.nearest_m, self.farthest_m)
        return SplitSummary(
            self.split,
            self.samples,
            shards,
            self.num_bytes / 1e6,
            share,
            depth_range_m,
            dict(sorted(self.counts.items())),
        )


def _check_options(raw: RawDataset, options: ShardOptions) -> None:
    if not re.fullmatch(NAME_PATTERN, raw.name):
        raise InputError(f"--name may hold letters, digits, _ and - only, not {raw.name!r}.")
    if min(raw.image_size) < 1:
        raise InputError(f"--size and --crop must be positive, not {raw.image_size[0]} {raw.image_size[1]}.")
    if options.samples_per_shard < 1:
        raise InputError(f"--samples-per-shard must be at least 1, not {options.samples_per_shard}.")
    if not 1 <= options.image_quality <= 100:
        raise InputError(f"--image-quality must be from 1 to 100, not {options.image_quality}.")


def _make_room(folder: Path, overwrite: bool) -> None:
    """Make the folder; a data set in it is removed or refused."""
    if (folder / FILE_NAME).exists():
        if not overwrite:
            raise InputError(f"{folder} already holds a prepared data set. Choose another --out, or pass --overwrite.")
        for shards in read_dataset(folder).manifest.splits.values():
            for shard in shards:
                (folder / shard.file).unlink(missing_ok=True)
        (folder / FILE_NAME).unlink()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}). Choose another --out.") from error


def _shard_sizes(samples: int, samples_per_shard: int) -> list[int]:
    full, rest = divmod(samples, samples_per_shard)
    return [samples_per_shard] * full + [rest] * (rest > 0)


def _use_one_thread() -> None:
    """Keep sums in one order, so that bytes do not depend on the number of cores; processes share the work."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads(), cv2.getNumThreads()
    _use_one_thread()
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


def default_workers() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
