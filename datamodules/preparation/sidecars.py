"""What is finished of a preparation: beside every finished shard a JSON file that says all about it.

``train/rooms-train-000000.json`` is written after its shard, and appears under its name only when complete. It also
says what data set the shard is of, and how many shards that has, so that parts of a data set are brought together by
copying shards with their sidecars into one folder. ``dataset.json`` is their sum; once it is there, they are removed.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from datamodules.preparation.plan import Plan, shard_files
from datamodules.preparation.statistics import SplitStatistics
from datamodules.shards.files import file_sha256
from datamodules.shards.manifest import FILE_NAME, DatasetManifest, ShardInfo, is_inside, parse_manifest, read_dataset
from geometry.errors import InputError, one_line
from geometry.files.json_text import parse_json, read_json_file
from geometry.files.limits import MAX_TEXT_BYTES
from geometry.files.reading import read_regular_file
from geometry.files.writing import write_whole

_PATTERN = "*/*-[0-9][0-9][0-9][0-9][0-9][0-9].json"
# Where earlier versions noted what to do, and what was finished.
_FORMER_PLAN = "preparation/plan.json"
_MAX_SHARDS = 10**6


@dataclass(frozen=True)
class Sidecar:
    """A finished shard, and the data set that it is of.

    Attributes:
        info: its line in ``dataset.json``. A shard of which no sample was left has 0 samples and no file.
        num_bytes: size of the file.
        statistics: counts over its samples.
        data_set: ``dataset.json`` without shards.
        counts: number of shards of the data set, by split.
    """

    info: ShardInfo
    num_bytes: int
    statistics: SplitStatistics
    data_set: DatasetManifest
    counts: dict[str, int]

    @property
    def plan(self) -> tuple[str, str]:
        """What is the same for all shards of one preparation, and for no others."""
        return self.data_set.plan_sha256, str(self.counts)


def finished_shards(folder: Path, plan: Plan) -> dict[str, Sidecar]:
    """Return what is finished of a plan in a folder, by file.

    Raises:
        InputError: it holds an unfinished preparation of something else.
    """
    found = {}
    for sidecar in read_sidecars(folder):
        if sidecar.data_set.plan_sha256 != plan.manifest.plan_sha256:
            differences = _differences(sidecar.data_set, plan.manifest)
            raise InputError(
                f"{folder} holds an unfinished preparation with {differences}. Run the command with the options it was "
                "begun with, choose another --output, or pass --overwrite."
            )
        found[sidecar.info.file] = sidecar
    return found


def format_begun(folder: Path) -> Literal[1, 2] | None:
    """Return the shard format of what a folder holds already; None if it holds nothing, or what is damaged."""
    with suppress(InputError):  # what is damaged is told, or replaced, by whoever continues it
        begun = finished(folder) or next((sidecar.data_set for sidecar in read_sidecars(folder)), None)
        if begun:
            return 2 if begun.options.get("shard_format") == 2 else 1
    return None


def read_sidecars(folder: Path) -> Iterator[Sidecar]:
    """Yield what lies in a folder beside finished shards, in the order of their names.

    A sidecar without its shard, or with one of another size, is passed over.

    Raises:
        InputError: a sidecar is damaged, or an earlier version of this program wrote into the folder.
    """
    if (folder / _FORMER_PLAN).exists():
        raise InputError(
            f"{folder} holds an unfinished preparation of an earlier version of this program. Finish it with that "
            "version, choose another --output, or pass --overwrite."
        )
    for path in sorted(folder.glob(_PATTERN)):
        try:
            sidecar = _parse(parse_json(read_regular_file(path, MAX_TEXT_BYTES), MAX_TEXT_BYTES), path)
        except FileNotFoundError:  # another part has just finished the data set
            continue
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            why = one_line(str(error).removeprefix(f"{path}: "), 100)
            raise InputError(f"{path} is damaged ({why}). Remove it and run the command again.") from error
        shard = path.with_suffix(".tar")
        if sidecar.info.samples == 0 or (shard.is_file() and shard.stat().st_size == sidecar.num_bytes):
            yield sidecar


def _parse(document: dict[str, Any], path: Path) -> Sidecar:
    """Return what a sidecar says; raise any error of values and types where it is not what was written."""
    statistics = SplitStatistics()
    statistics.add(SplitStatistics.from_json(document["statistics"]))
    info, counts = ShardInfo(**document["info"]), document["shards"]
    if not all(type(count) is int and 0 <= count <= _MAX_SHARDS for count in counts.values()):
        raise ValueError(f"it counts {counts} shards")
    if info.file != f"{path.parent.name}/{path.stem}.tar" or counts.get(path.parent.name, 0) < 1:
        raise ValueError("it is about another shard")
    if not all(is_inside(split) for split in counts):
        raise ValueError("it names files outside its folder")
    data_set = parse_manifest(document["data_set"], str(path))
    return Sidecar(info, document["num_bytes"], statistics, data_set, counts)


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Note that a shard is finished."""
    document = {
        "info": asdict(sidecar.info),
        "num_bytes": sidecar.num_bytes,
        "statistics": sidecar.statistics.to_json(),
        "data_set": sidecar.data_set.to_document(),
        "shards": sidecar.counts,
    }
    write_whole((folder / sidecar.info.file).with_suffix(".json"), json.dumps(document) + "\n", is_lasting=True)


def copy_shard(source: Path, target: Path, sidecar: Sidecar) -> None:
    """Take over a finished shard of another folder, with its sidecar. It is linked where possible, else copied.

    Raises:
        InputError: the copy differs from what was written.
    """
    file = sidecar.info.file
    (target / file).parent.mkdir(parents=True, exist_ok=True)
    if sidecar.info.samples:
        temporary = (target / file).with_suffix(".tar.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link((source / file).resolve(), temporary)  # a link would lead elsewhere from here
        except OSError:
            shutil.copyfile(source / file, temporary)
        if file_sha256(temporary) != sidecar.info.sha256:
            temporary.unlink()
            raise InputError(f"{source / file} has changed since it was written. Prepare that part again.")
        os.replace(temporary, target / file)
    write_sidecar(target, sidecar)


def finish(folder: Path) -> tuple[DatasetManifest | None, list[str]]:
    """Write ``dataset.json`` and remove the sidecars if every shard is there.

    Returns:
        The manifest, None if shards are missing; and their files.
    """
    found = {sidecar.info.file: sidecar for sidecar in read_sidecars(folder)}
    if not found:
        return finished(folder), []  # another part may have been faster
    first = next(iter(found.values()))
    files = shard_files(first.data_set.name, first.counts)
    missing = [file for _, file in files if file not in found]
    if not missing:
        with suppress(FileNotFoundError):  # another part was faster, and has removed what this one was writing
            with_shards(first.data_set, [(split, found[file]) for split, file in files]).write(folder)
        remove_sidecars(folder, (file for _, file in files))
    return finished(folder), missing


def finished(folder: Path) -> DatasetManifest | None:
    """Return the manifest of the data set if ``dataset.json`` is there.

    Raises:
        InputError: it is damaged.
    """
    return read_dataset(folder).manifest if (folder / FILE_NAME).exists() else None


def remove_sidecars(folder: Path, files: Iterable[str]) -> None:
    """Remove what lies beside the shards of a data set, and what killed runs were writing; the shards stay."""
    unfinished = (path for pattern in (".writing-*", "*/.writing-*") for path in folder.glob(pattern))
    for path in (*((folder / file).with_suffix(".json") for file in files), *unfinished):
        path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Remove the data set or what is finished of it, shards and all."""
    manifest, files = finished(folder), [path.relative_to(folder).as_posix() for path in folder.glob(_PATTERN)]
    files += [shard.file for shards in manifest.splits.values() for shard in shards] if manifest else []
    with suppress(ValueError, KeyError, TypeError):  # it is not there, or is something else
        former = [str(file) for _, file in read_json_file(folder / _FORMER_PLAN)["shards"]]
        files += [file for file in former if is_inside(file)]
    for file in files:
        (folder / file).with_suffix(".tar").unlink(missing_ok=True)
    remove_sidecars(folder, files)
    (folder / FILE_NAME).unlink(missing_ok=True)
    shutil.rmtree((folder / _FORMER_PLAN).parent, ignore_errors=True)


def with_shards(manifest: DatasetManifest, shards: Iterable[tuple[str, Sidecar]]) -> DatasetManifest:
    """Return the manifest with shards and statistics.

    Args:
        manifest: a manifest without shards.
        shards: split and sidecar of every shard, in order.
    """
    splits: dict[str, list[ShardInfo]] = {}
    statistics: dict[str, SplitStatistics] = {}
    for split, sidecar in shards:
        statistics.setdefault(split, SplitStatistics()).add(sidecar.statistics)
        splits.setdefault(split, []).extend([sidecar.info] if sidecar.info.samples else [])
    return replace(
        manifest, splits=splits, statistics={split: counted.summary() for split, counted in statistics.items()}
    )


def storage_error(error: OSError, folder: Path) -> InputError:
    """Return what to tell the user about a file that could not be written."""
    remedy = "Make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Mend that"
    return InputError(
        f"{folder} cannot be written to ({error.strerror}). What is finished is kept and valid. {remedy}, then run the "
        "same command again."
    )


def _differences(old: DatasetManifest, new: DatasetManifest) -> str:
    """Name what differs between two plans."""
    # Through JSON, which knows no tuples.
    both = (json.dumps({**manifest.to_document(), **manifest.options}) for manifest in (old, new))
    before, now = map(json.loads, both)
    changed = [name for name in now if name not in ("options", "plan_sha256") and before.get(name) != now[name]]
    if not changed:
        return "other raw frames (files were added to or taken from the raw folder, or a list or table changed)"
    return "other options (" + ", ".join(f"{name}: {before.get(name)} then, {now[name]} now" for name in changed) + ")"
