"""What is finished of a preparation under way: one small record per shard, so that nothing is done twice or lost.

While a data set is being prepared, its folder holds ``preparation/plan.json`` and ``preparation/<shard>.json`` for
every finished shard. A record is written after its shard, and both appear under their names only when complete. The
folder ``preparation`` is removed once ``dataset.json`` is there.
"""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datamodules.preparation.plan import Plan
from datamodules.preparation.statistics import SplitStatistics
from datamodules.shards.files import file_sha256
from datamodules.shards.manifest import FILE_NAME, DatasetManifest, ShardInfo, is_inside, parse_manifest, read_dataset
from geometry.errors import InputError, one_line
from geometry.files.json_text import parse_json
from geometry.files.limits import MAX_TEXT_BYTES
from geometry.files.reading import read_regular_file

FOLDER_NAME = "preparation"
PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard.

    Attributes:
        info: its line in ``dataset.json``. A shard of which no sample was left has 0 samples and no file.
        num_bytes: size of the file.
        statistics: counts over its samples.
    """

    info: ShardInfo
    num_bytes: int
    statistics: SplitStatistics

    def exists_in(self, folder: Path) -> bool:
        """Whether the shard's file is in a data set's folder, with the right size."""
        path = folder / self.info.file
        return self.info.samples == 0 or (path.is_file() and path.stat().st_size == self.num_bytes)


class Journal:
    """The records of the data set in a folder.

    Args:
        folder: folder of the data set; it may not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / FOLDER_NAME

    def begin(self, plan: Plan) -> None:
        """Make the folder and note the plan, or join the preparation that is under way.

        Raises:
            InputError: the folder cannot be made, or it holds an unfinished preparation of something else.
        """
        try:
            self.place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be made ({error.strerror}). Choose another --output.") from error
        found = self.read_plan()
        if found is None:
            shards = [(shard.split, shard.file) for shard in plan.shards]
            self._write(PLAN_NAME, {"manifest": plan.manifest.to_document(), "shards": shards})
        elif found[0].plan_sha256 != plan.manifest.plan_sha256:
            raise InputError(
                f"{self.folder} holds an unfinished preparation with {_differences(found[0], plan.manifest)}. Run the "
                "command with the options it was begun with, choose another --output, or pass --overwrite."
            )

    def join(self, other: "Journal") -> None:
        """Take over the plan of another folder, if there is none yet."""
        document = other._read(PLAN_NAME)
        if document is not None and self._read(PLAN_NAME) is None:
            self.place.mkdir(parents=True, exist_ok=True)
            self._write(PLAN_NAME, document)

    def read_plan(self) -> tuple[DatasetManifest, list[tuple[str, str]]] | None:
        """Return the manifest and (split, file) of every shard that were noted, None if nothing is under way.

        Raises:
            InputError: the note is damaged.
        """
        document = self._read(PLAN_NAME)
        if document is None:
            return None
        with self._as_written(PLAN_NAME):
            manifest = parse_manifest(document["manifest"], str(self.place / PLAN_NAME))
            shards = [(str(split), str(file)) for split, file in document["shards"]]
            if not all(is_inside(file) for _, file in shards):
                raise ValueError("it names files outside its folder")
        return manifest, shards

    def record(self, file: str) -> ShardRecord | None:
        """Return the record of a shard; None if it is not finished, its file is gone, or an older version wrote it."""
        document = self._read(f"{Path(file).stem}.json")
        if document is None:
            return None
        with self._as_written(f"{Path(file).stem}.json"):
            if "modalities" not in document["statistics"]:
                return None
            statistics = SplitStatistics()
            statistics.add(SplitStatistics.from_json(document["statistics"]))
            record = ShardRecord(ShardInfo(**document["info"]), document["num_bytes"], statistics)
            if record.info.file != file:
                raise ValueError("it is about another shard")
            return record if record.exists_in(self.folder) else None

    def add(self, record: ShardRecord) -> None:
        """Note that a shard is finished."""
        document = {**asdict(record), "statistics": record.statistics.to_json()}
        self._write(f"{Path(record.info.file).stem}.json", document)

    def adopt(self, other: "Journal", file: str) -> bool:
        """Take over a finished shard of another folder, with its record. Files are linked where possible, else copied.

        Returns:
            Whether the other folder had it.

        Raises:
            InputError: the copy differs from what was written.
        """
        record = other.record(file)
        if record is None:
            return False
        if record.info.samples > 0:
            target = self.folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f"{target.name}.tmp")
            temporary.unlink(missing_ok=True)
            try:
                os.link((other.folder / file).resolve(), temporary)  # a link would lead elsewhere from here
            except OSError:
                shutil.copyfile(other.folder / file, temporary)
            if file_sha256(temporary) != record.info.sha256:
                temporary.unlink()
                raise InputError(f"{other.folder / file} has changed since it was written. Prepare that part again.")
            os.replace(temporary, target)
        self.add(record)
        return True

    def finish(self) -> DatasetManifest | None:
        """Write ``dataset.json`` and remove the records if every shard is there.

        Returns:
            The manifest, None if shards are missing.
        """
        plan = self.read_plan()
        records = [(split, self.record(file)) for split, file in plan[1]] if plan else []
        if plan is None or any(record is None for _, record in records):
            return self.finished()  # another part may have been faster
        complete = [(split, record) for split, record in records if record is not None]
        manifest = with_records(plan[0], complete)
        try:
            self._write(FILE_NAME, manifest.to_document(), self.folder / FILE_NAME)
        except FileNotFoundError:
            pass  # another part was faster
        else:
            self.remove()
        return self.finished()

    def finished(self) -> DatasetManifest | None:
        """Return the manifest of the data set if ``dataset.json`` is there.

        Raises:
            InputError: it is damaged.
        """
        return read_dataset(self.folder).manifest if (self.folder / FILE_NAME).exists() else None

    def remove(self) -> None:
        """Forget the records; shards stay."""
        shutil.rmtree(self.place, ignore_errors=True)

    def discard(self) -> None:
        """Remove the data set or what is finished of it, shards and all."""
        manifest, plan = self.finished(), self.read_plan()
        files = [file for _, file in plan[1]] if plan else []
        files += [shard.file for shards in manifest.splits.values() for shard in shards] if manifest else []
        for file in files:
            (self.folder / file).unlink(missing_ok=True)
        (self.folder / FILE_NAME).unlink(missing_ok=True)
        self.remove()

    @contextmanager
    def _as_written(self, name: str) -> Iterator[None]:
        """Say that a note is damaged where what it holds is not what was written.

        Raises:
            InputError: it is.
        """
        try:
            yield
        except InputError:
            raise
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(
                f"{self.place / name} is damaged ({one_line(error, 100)}). Remove it and run the command again."
            ) from error

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            document = parse_json(read_regular_file(self.place / name, MAX_TEXT_BYTES), MAX_TEXT_BYTES)
            if not isinstance(document, dict):
                raise InputError("it holds no JSON object")
            return document
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(
                f"{self.place / name} is damaged ({one_line(error)}). Remove it and run the command again."
            ) from error

    def _write(self, name: str, document: dict[str, Any], target: Path | None = None) -> None:
        """Write JSON that appears whole or not at all, even if other parts write the same file at the same time."""
        temporary = self.place / f"{name}.{uuid.uuid4().hex}.tmp"
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(document, indent=2 if target else None) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target or self.place / name)


def with_records(manifest: DatasetManifest, records: Iterable[tuple[str, ShardRecord]]) -> DatasetManifest:
    """Return the manifest with shards and statistics.

    Args:
        manifest: a manifest without shards.
        records: split and record of every shard, in order.
    """
    splits: dict[str, list[ShardInfo]] = {}
    statistics: dict[str, SplitStatistics] = {}
    for split, record in records:
        statistics.setdefault(split, SplitStatistics()).add(record.statistics)
        splits.setdefault(split, []).extend([record.info] if record.info.samples else [])
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
    before, now = (json.loads(json.dumps({**manifest.to_document(), **manifest.options})) for manifest in (old, new))
    changed = [name for name in now if name not in ("options", "plan_sha256") and before.get(name) != now[name]]
    if not changed:
        return "other raw frames (files were added to or taken from the raw folder, or a list or table changed)"
    return "other options (" + ", ".join(f"{name}: {before.get(name)} then, {now[name]} now" for name in changed) + ")"
