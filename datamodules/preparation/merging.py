"""Brings the parts of a data set together that several machines have prepared."""

from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.preparation.sidecars import copy_shard, finish, finished, read_sidecars, storage_error
from datamodules.shards.manifest import DatasetManifest
from geometry.errors import InputError
from geometry.files.locks import sole_use


def merge_parts(folders: Sequence[str | Path], report: Callable[[str], None] = print) -> DatasetManifest:
    """Bring parts of a data set together in the first folder and write its ``dataset.json``.

    Args:
        folders: where the parts were written. Shards of the others are linked or copied into the first, which may be
            new; the others are left as they are.
        report: receives the notices, one line each.

    Returns:
        The whole data set.

    Raises:
        InputError: the folders hold parts of different data sets, or a shard is missing.
    """
    for folder in folders:
        if Path(folder).exists() and not Path(folder).is_dir():
            raise InputError(f"{folder} is a file. Give folders that `onestep prepare` wrote into.")
    with sole_use(Path(folders[0])):
        return _merge_alone(folders, report)


def _merge_alone(folders: Sequence[str | Path], report: Callable[[str], None]) -> DatasetManifest:
    target, *others = map(Path, folders)
    manifest = finished(target)
    found = {folder: list(read_sidecars(folder)) for folder in (target, *others)}
    if manifest:
        for folder, sidecars in found.items():
            if any(sidecar.data_set.plan_sha256 != manifest.plan_sha256 for sidecar in sidecars):
                raise InputError(
                    f"{target} is a complete data set already, and {folder} holds parts of another one. Name another "
                    "folder first."
                )
        report(f"{target} is complete already: nothing to do.")
        return manifest
    if len({sidecar.plan for sidecars in found.values() for sidecar in sidecars}) > 1:
        raise InputError(
            f"{', '.join(map(str, folders))} hold parts of different data sets, or made with other options."
        )
    try:
        there = {sidecar.info.file for sidecar in found[target]}
        for folder in others:
            for sidecar in found[folder]:
                if sidecar.info.file not in there:
                    copy_shard(folder, target, sidecar)
                    there.add(sidecar.info.file)
        manifest, missing = finish(target)
    except OSError as error:
        raise storage_error(error, target) from error
    if manifest is None:
        nothing = [folder for folder in others if not found[folder]] or ([] if there else [target])
        raise InputError(
            f"{nothing[0]} holds no part of a preparation to merge."
            if nothing
            else f"{len(missing)} of {len(missing) + len(there)} shards are not finished (such as {missing[0]}). Run "
            "the parts they belong to again, then merge."
        )
    return manifest
