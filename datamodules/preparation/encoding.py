"""From frames to the entries of a shard, in this process or in several, always in the same order."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.processes import process_pool
from datamodules.preparation.statistics import SplitStatistics
from datamodules.shards.codecs import ARRAY_FORMAT, IMAGE, INFO, encode_array, encode_image, encode_json, entry_name
from datamodules.shards.files import EncodedSample
from datamodules.sources.protocol import Frame, PreparedSample, RawDataset
from datamodules.threads import one_thread
from geometry.errors import InputError
from geometry.modalities import Modality, modality_named, registered
from geometry.modalities.statistics import ValueStatistics
from geometry.modalities.stored import Facts


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
        with one_thread():
            yield from map(encode, frames)
        return
    with process_pool(min(workers, len(frames))) as pool:
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
    size = sample.image.shape[:2]
    assert size == tuple(raw.image_size), f"{frame.key}: wrong size"
    assert tuple(sample.targets) == tuple(raw.modalities), f"{frame.key}: holds {tuple(sample.targets)}"
    modalities = {name: modality_named(name)() for name in sample.targets}
    facts = {name: modalities[name].facts(values) for name, values in sample.targets.items()}
    if _invalid_ratio(modalities, facts) > options.max_invalid_ratio:
        return EncodedFrame(frame.key, None, SplitStatistics(left_out=[frame.key]))
    info = _describe(sample, modalities, facts)
    image = encode_image(sample.image, options.image_format, options.image_quality)
    entries = {entry_name(IMAGE, options.image_format): image}
    for name, values in sample.targets.items():
        coding = None if options.array_format == 1 else modalities[name].coding
        entry = entry_name(name, coding.name if coding else ARRAY_FORMAT)
        kept = coding.encode(values, facts[name].known) if coding else modalities[name].store(values)
        entries[entry] = encode_array(kept, options.array_format)
    entries[entry_name(INFO, "json")] = encode_json(info)
    statistics = SplitStatistics(samples=1, num_bytes=sum(map(len, entries.values())))
    for name, found in facts.items():
        low, *_, high = found.quantiles
        statistics.modalities[name] = ValueStatistics()
        statistics.modalities[name].add_image(found.known, found.numbers, low, high)
    statistics.counts.update(f"{name} {info[name]}" for name in ("camera", *registered()) if name in info)
    return EncodedFrame(frame.key, EncodedSample(frame.key, "", entries), statistics)


def _invalid_ratio(modalities: Mapping[str, Modality], facts: Mapping[str, Facts]) -> float:
    """Return the largest share of unknown pixels among the modalities that count for it, or among all if none does."""
    counting = [name for name, modality in modalities.items() if modality.counts_for_quality] or list(facts)
    return max(np.count_nonzero(~facts[name].known) / facts[name].known.size for name in counting)


def _describe(sample: PreparedSample, modalities: Mapping[str, Modality], facts: Mapping[str, Facts]) -> dict[str, Any]:
    """Return the sample's JSON: its camera, and the share, range and outer quantiles of the known values."""
    camera = sample.camera_from_pixel
    info = {
        **sample.info,
        "camera_from_pixel": None if camera is None else np.asarray(camera, np.float64).tolist(),
        "pixel_center": sample.pixel_center,
        "image_size": list(sample.image.shape[:2]),
    }
    for name, modality in modalities.items():
        info |= modality.describe(facts[name])
    return info
