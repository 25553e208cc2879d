"""Brings the parts of a data set together that several machines have prepared."""

from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.preparation.sidecars import copy_shard, finish, finished, read_sidecars, storage_error
from datamodules.preparation.summaries import SplitSummary, summarize
from geometry.errors import InputError
from geometry.locks import sole_use


def merge_parts(folders: Sequence[str | Path], report: Callable[[str], None] = print) -> list[SplitSummary]:
    """Bring parts of a data set together in the first folder and write its ``dataset.json``.

    Args:
        folders: where the parts were written. Shards of the others are linked or copied into the first, which may be
            new; the others are left as they are.
        report: receives the notices, one line each.

    Returns:
        A summary of every split.

    Raises:
        InputError: the folders hold parts of different data sets, or a shard is missing.
    """
    for folder in folders:
        if Path(folder).exists() and not Path(folder).is_dir():
            raise InputError(f"{folder} is a file. Give folders that `python -m datamodules.prepare` wrote into.")
    with sole_use(Path(folders[0])):
        return _merge_alone(folders, report)


def _merge_alone(folders: Sequence[str | Path], report: Callable[[str], None]) -> list[SplitSummary]:
    target, *others = map(Path, folders)
    manifest = finished(target)
    if manifest:
        report(f"{target} is complete already: nothing to do.")
        return summarize(manifest)
    found = {folder: list(read_sidecars(folder)) for folder in (target, *others)}
    if len({whole.manifest.plan_sha256 for shards in found.values() for whole, _ in shards}) > 1:
        raise InputError(
            f"{', '.join(map(str, folders))} hold parts of different data sets, or made with other options."
        )
    try:
        there = {sidecar.info.file for _, sidecar in found[target]}
        for folder in others:
            for whole, sidecar in found[folder]:
                if sidecar.info.file not in there:
                    copy_shard(folder, target, whole, sidecar)
                    there.add(sidecar.info.file)
        manifest, missing = finish(target)
    except OSError as error:
        raise storage_error(error, target) from error
    if manifest is None:
        empty = [folder for folder in (*others, target) if not found[folder]]
        if not missing or any(folder in others for folder in empty):
            raise InputError(f"{empty[0]} holds no part of a preparation to merge.")
        raise InputError(
            f"{len(missing)} of {len(missing) + len(there)} shards are not finished (such as {missing[0]}). Run the "
            "parts they belong to again, then merge."
        )
    return summarize(manifest)
