"""From raw frames to shards, the same way for every data set.

The content of a shard is a pure function of the sorted list of frames, the options and the shard's number. Neither the
number of worker processes, nor the division into parts, nor where a run was killed and continued changes a byte.
"""

import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import Any

from tqdm import tqdm

from datamodules.preparation.encoding import EncodedFrame, encode_frames
from datamodules.preparation.plan import Plan, PlannedShard, ShardOptions, make_plan
from datamodules.preparation.processes import MAX_PROCESSES
from datamodules.preparation.sidecars import (
    Sidecar,
    discard,
    finish,
    finished,
    finished_shards,
    format_begun,
    remove_sidecars,
    storage_error,
    with_shards,
    write_sidecar,
)
from datamodules.preparation.statistics import SplitStatistics
from datamodules.shards.files import EncodedSample, write_shard
from datamodules.shards.manifest import NAME_PATTERN, DatasetManifest
from datamodules.sources.protocol import RawDataset
from geometry.errors import InputError
from geometry.files.limits import MAX_SAMPLE_PIXELS
from geometry.files.locks import sole_use
from geometry.files.paths import check_writable

# Shards are files of that name and a number.
_LONGEST_NAME = 100
DEFAULT_OPTIONS = ShardOptions()


def prepare_dataset(
    raw: RawDataset,
    out: str | Path,
    options: ShardOptions = DEFAULT_OPTIONS,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
    report: Callable[[str], None] = print,
    part: tuple[int, int] = (1, 1),
    max_errors: int = 0,
) -> DatasetManifest:
    """Prepare a raw data set, or a part of it, into shards and ``dataset.json``.

    A run that was killed is continued by the same call: shards that are finished are kept. ``dataset.json`` is written
    by the run that finds all shards finished; of parts that write into separate folders, by ``merge_parts``.

    Args:
        raw: the raw data set.
        out: folder to write into; made if it is missing.
        options: how samples are stored.
        workers: number of processes that read and encode frames; the result does not depend on it.
        overwrite: replace a data set that is already there, or an unfinished one made with other options.
        progress: show a progress bar on stderr.
        report: receives the notices, one line each.
        part: (I, N) to write only every N-th shard, from the I-th on.
        max_errors: number of broken samples to skip in this part; the next one stops the run.

    Returns:
        The whole data set if it is complete, else this part of it.

    Raises:
        InputError: there is nothing to prepare, too many frames cannot be used, or another data set is already there.
    """
    _check_options(raw, options, part, overwrite, max_errors, workers)
    check_writable(Path(out), "--output")
    frames = raw.list_frames()
    for notice in frames.notices:
        report(notice)
    try:
        with sole_use(Path(out), f".part-{part[0]}-of-{part[1]}.lock"):
            options = replace(options, shard_format=options.shard_format or format_begun(Path(out)))
            plan = make_plan(raw, frames.splits, options)
            run = _Run(raw, Path(out), plan, options, workers, progress, report, part, max_errors)
            return run.continued(overwrite)
    except OSError as error:
        raise storage_error(error, Path(out)) from error


@dataclass(frozen=True)
class _Run:
    """What ``prepare_dataset`` was told, in a folder in which no other process prepares the same part."""

    raw: RawDataset
    out: Path
    plan: Plan
    options: ShardOptions
    workers: int
    progress: bool
    report: Callable[[str], None]
    part: tuple[int, int]
    max_errors: int

    def continued(self, overwrite: bool) -> DatasetManifest:
        """Write what is missing."""
        out, plan = self.out, self.plan
        mine, manifest = plan.part(*self.part), finished(out)
        if manifest and manifest.plan_sha256 == plan.manifest.plan_sha256 and not overwrite:
            self.report(f"{out} is complete already: nothing to do.")
            remove_sidecars(out, (shard.file for shard in plan.shards))
            return manifest
        if manifest and not overwrite:
            raise InputError(f"{out} already holds a prepared data set. Choose another --output, or pass --overwrite.")
        try:
            done = {} if manifest else finished_shards(out, plan)
        except InputError:
            if not overwrite:
                raise
            manifest, done = None, {}
            discard(out)
        if manifest:
            discard(out)
        sidecars = self._write(mine, done)
        manifest, _ = finish(out)
        if manifest is None and self.part[1] > 1:
            number, parts = self.part
            self.report(f"Part {number} of {parts} is finished: {len(mine)} of {len(plan.shards)} shards.")
        splits = [shard.split for shard in mine]
        return manifest or with_shards(plan.manifest, zip(splits, sidecars, strict=True))

    def _write(self, shards: Sequence[PlannedShard], done: Mapping[str, Sidecar]) -> list[Sidecar]:
        """Write the shards that are not finished yet, and return the sidecars of all."""
        records = {shard.file: done[shard.file] for shard in shards if shard.file in done}
        pending = [shard for shard in shards if shard.file not in records]
        if records and pending:
            self.report(f"Continuing: {len(records)} of {len(shards)} shards are finished.")
        skipped = sum(len(record.statistics.skipped) for record in records.values())
        if skipped > self.max_errors:
            raise InputError(
                f"finished shards lack {skipped} broken samples. Pass --max_errors {skipped} or more to continue with "
                "them."
            )
        frames = [frame for shard in pending for frame in shard.frames]
        total = sum(len(shard.frames) for shard in shards)
        bar = tqdm(
            total=total,
            initial=total - len(frames),
            desc=self.raw.name,
            unit="frame",
            disable=not self.progress,
            # In a log file, a line now and then.
            mininterval=0.1 if sys.stderr.isatty() else 30.0,
        )
        stream = self._usable(encode_frames(self.raw, frames, self.options, self.workers), skipped)
        with bar, closing(stream):  # type: ignore[type-var]
            for shard in pending:
                statistics = SplitStatistics()
                samples = _count(islice(stream, len(shard.frames)), statistics, bar)
                info = write_shard(self.out, shard.file, samples)
                size = (self.out / shard.file).stat().st_size if info.samples else 0
                records[shard.file] = Sidecar(info, size, statistics, self.plan.manifest, self.plan.counts)
                write_sidecar(self.out, records[shard.file])
        return [records[shard.file] for shard in shards]

    def _usable(self, frames: Iterator[EncodedFrame], found: int) -> Iterator[EncodedFrame]:
        """Pass frames on, and name the broken ones until there are too many; ``found`` were skipped before."""
        with closing(frames):  # type: ignore[type-var]
            for frame in frames:
                if frame.problem:
                    found += 1
                    if found > self.max_errors:
                        before = f" It is broken sample number {found}." if found > 1 else ""
                        raise InputError(
                            f"sample {frame.key}: {frame.problem}{before} Finished shards are kept: mend it and run "
                            f"the command again, or skip such samples with --max_errors N (N > {self.max_errors})."
                        )
                    self.report(f"Skipped: sample {frame.key}: {frame.problem}")
                yield frame


def default_workers() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _count(frames: Iterable[EncodedFrame], statistics: SplitStatistics, bar: Any) -> Iterator[EncodedSample]:  # noqa: ANN401
    """Pass on the samples, and add up their statistics."""
    for frame in frames:
        statistics.add(frame.statistics)
        bar.update()
        if frame.sample is not None:
            yield frame.sample


def _check_options(
    raw: RawDataset, options: ShardOptions, part: tuple[int, int], overwrite: bool, max_errors: int, workers: int
) -> None:
    if not re.fullmatch(NAME_PATTERN, raw.name) or len(raw.name) > _LONGEST_NAME:
        raise InputError(
            f"--name may hold up to {_LONGEST_NAME} letters, digits, _ and - only, not {shorten(repr(raw.name), 60)}."
        )
    if not 1 <= workers <= MAX_PROCESSES:
        raise InputError(f"--workers must be from 1 to {MAX_PROCESSES}, not {workers}.")
    if min(raw.image_size) < 1:
        raise InputError(f"--size and --crop must be positive, not {raw.image_size[0]} {raw.image_size[1]}.")
    if math.prod(raw.image_size) > MAX_SAMPLE_PIXELS:
        raise InputError(
            f"samples of {raw.image_size[0]}x{raw.image_size[1]} pixels are too large; at most "
            f"{MAX_SAMPLE_PIXELS / 1e6:.0f} megapixels are stored. Give --size or --crop."
        )
    if options.samples_per_shard < 1:
        raise InputError(f"--samples_per_shard must be at least 1, not {options.samples_per_shard}.")
    if not 1 <= options.image_quality <= 100:
        raise InputError(f"--image_quality must be from 1 to 100, not {options.image_quality}.")
    if not 0 <= options.max_invalid_ratio <= 1:
        raise InputError(f"--max_invalid_ratio must be from 0 to 1, not {options.max_invalid_ratio}.")
    if max_errors < 0:
        raise InputError(f"--max_errors must be 0 or more, not {max_errors}.")
    if overwrite and part[1] > 1:
        raise InputError(
            "--overwrite would remove what other parts have written: empty the folder, then run the parts."
        )
