"""Brings the parts of a data set together that several machines have prepared."""

from collections.abc import Callable, Sequence
from pathlib import Path

from datamodules.preparation.journal import Journal, storage_error
from datamodules.preparation.summaries import SplitSummary, summarize
from geometry.errors import InputError
from geometry.files.locks import sole_use


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
            raise InputError(f"{folder} is a file. Give folders that `onestep prepare` wrote into.")
    with sole_use(Path(folders[0])):
        return _merge_alone(folders, report)


def _merge_alone(folders: Sequence[str | Path], report: Callable[[str], None]) -> list[SplitSummary]:
    target, *others = (Journal(Path(folder)) for folder in folders)
    manifest = target.finished()
    if manifest:
        for other in others:
            plan = other.read_plan()
            if plan and plan[0].plan_sha256 != manifest.plan_sha256:
                raise InputError(
                    f"{target.folder} is a complete data set already, and {other.folder} holds parts of another one. "
                    "Name another folder first."
                )
        report(f"{target.folder} is complete already: nothing to do.")
        return summarize(manifest)
    begun = {journal: plan for journal in (target, *others) if (plan := journal.read_plan())}
    missing_plan = [str(journal.folder) for journal in others if journal not in begun]
    if missing_plan or not begun:
        raise InputError(f"{(missing_plan or [str(target.folder)])[0]} holds no part of a preparation to merge.")
    if len({plan.plan_sha256 for plan, _ in begun.values()}) > 1:
        raise InputError(
            f"{', '.join(map(str, folders))} hold parts of different data sets, or made with other options."
        )
    try:
        target.join(next(iter(begun)))
        files = [file for _, file in next(iter(begun.values()))[1]]
        for file in files:
            if target.record(file) is None:
                any(target.adopt(other, file) for other in others)
        manifest = target.finish()
    except OSError as error:
        raise storage_error(error, target.folder) from error
    if manifest is None:
        missing = [file for file in files if target.record(file) is None]
        raise InputError(
            f"{len(missing)} of {len(files)} shards are not finished (such as {missing[0]}). Run the parts they belong "
            "to again, then merge."
        )
    return summarize(manifest)
