"""From frames to the entries of a shard, in this process or in several, always in the same order."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch

from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.processes import process_pool
from datamodules.preparation.statistics import SplitStatistics
from datamodules.shards.codecs import encode_array, encode_image, encode_json
from datamodules.shards.files import EncodedSample
from datamodules.sources.protocol import Frame, PreparedSample, RawDataset
from geometry.errors import InputError

Array = np.ndarray


@dataclass(frozen=True)
class EncodedFrame:
    """What became of a frame.

    Attributes:
        key: id of the sample.
        sample: the sample to store; None if the frame is broken or left out.
        statistics: counts over this one sample.
        problem: why the frame cannot be used; empty unless it is broken.
    """

    key: str
    sample: EncodedSample | None
    statistics: SplitStatistics
    problem: str = ""


def encode_frames(
    raw: RawDataset, frames: Sequence[Any], options: ShardOptions, workers: int
) -> Iterator[EncodedFrame]:
    """Yield frames with their encoded samples, in order, with a bounded number in memory.

    Args:
        raw: the raw data set.
        frames: frames to load.
        options: how samples are stored.
        workers: number of processes; 1 works in this one.

    Yields:
        What became of every frame.

    Raises:
        InputError: a worker process was killed.
    """
    encode = partial(encode_frame, raw, options)
    if workers <= 1 or len(frames) <= 1:
        with _one_thread():
            yield from map(encode, frames)
        return
    with process_pool(min(workers, len(frames)), _use_one_thread) as pool:
        pending: deque[Future[EncodedFrame]] = deque()
        try:
            for frame in frames:
                pending.append(pool.submit(encode, frame))
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise InputError(
                "a worker process was killed, perhaps because memory ran out. Finished shards are kept: run the same "
                "command again, with fewer --workers."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def encode_frame(raw: RawDataset, options: ShardOptions, frame: Frame) -> EncodedFrame:
    """Return a frame with its encoded sample, or with what is wrong with it.

    Args:
        raw: the raw data set.
        options: how samples are stored.
        frame: one of its frames.

    Returns:
        What became of the frame. Broken input raises nothing.
    """
    try:
        sample = raw.load(frame)
    except InputError as error:
        return EncodedFrame(frame.key, None, SplitStatistics(skipped=[frame.key]), str(error))
    size = sample.depth.shape
    assert sample.image.shape[:2] == size == tuple(raw.image_size), f"{frame.key}: wrong size"
    depth = sample.depth.astype(np.float16)
    if (depth.size - np.count_nonzero(depth)) / depth.size > options.max_invalid_ratio:
        return EncodedFrame(frame.key, None, SplitStatistics(left_out=[frame.key]))
    info = _describe(sample)
    image_entry = f"image.{options.image_format}"
    entries = {image_entry: encode_image(sample.image, options.image_format, options.image_quality)}
    entries["depth.blosc"] = encode_array(depth)
    if sample.normals is not None:
        entries["normals.blosc"] = encode_array(sample.normals.astype(np.float16))
    entries["json"] = encode_json(info)
    statistics = SplitStatistics(samples=1, num_bytes=sum(map(len, entries.values())))
    statistics.add_depth(depth, info["depth_min_m"], info["depth_max_m"])
    statistics.counts.update(f"{name} {info[name]}" for name in ("camera", "normals") if name in info)
    return EncodedFrame(frame.key, EncodedSample(frame.key, "", entries), statistics)


def _describe(sample: PreparedSample) -> dict[str, Any]:
    """Return the sample's JSON: its camera, and the share, range and outer quantiles (metres) of its valid depth."""
    valid = sample.depth[sample.depth > 0]
    names = ("depth_min_m", "depth_q02_m", "depth_q98_m", "depth_max_m")
    quantiles = np.quantile(valid, (0, 0.02, 0.98, 1)) if valid.size else (None,) * 4
    rounded = [None if value is None else float(f"{value:.6g}") for value in quantiles]
    camera = sample.camera_from_pixel
    info = {
        **sample.info,
        "valid_share": round(valid.size / sample.depth.size, 6),
        **dict(zip(names, rounded, strict=True)),
        "camera_from_pixel": None if camera is None else np.asarray(camera, np.float64).tolist(),
        "pixel_center": sample.pixel_center,
        "image_size": list(sample.depth.shape),
    }
    if sample.normals is not None:
        info["normals_share"] = round(float((sample.normals != 0).any(axis=0).mean()), 6)
    return info


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
