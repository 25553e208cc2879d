"""Where runs are, and which of a run's checkpoints it goes on from."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from geometry.errors import InputError
from lightning_modules.training.checkpoint_files import DAMAGED, LAST, PREVIOUS, damage

OnDamage = Literal["previous", "stop"]


def newest_run(folder: Path) -> Path | None:
    """Return the newest run ``version_N`` in a folder that holds a checkpoint, or None.

    Args:
        folder: folder of all runs of one name.
    """
    runs = (run for run in folder.glob("version_*") if run_number(run) >= 0 and has_checkpoint(run))
    return max(runs, key=run_number, default=None)


def next_run(folder: Path) -> Path:
    """Return the folder ``version_N`` that a new run gets; it is not made yet.

    Args:
        folder: folder of all runs of one name.
    """
    return folder / f"version_{max(map(run_number, folder.glob('version_*')), default=-1) + 1}"


def run_number(run: Path) -> int:
    """Return N of a folder ``version_N``, and -1 of others."""
    number = run.name.removeprefix("version_")
    return int(number) if number.isdigit() else -1


def has_checkpoint(run: Path) -> bool:
    """Say whether a folder is that of a run that has saved a checkpoint.

    Args:
        run: the folder.
    """
    return next(_candidates(run), None) is not None


def last_checkpoint(run: Path, on_damage: OnDamage = "previous", set_aside: bool = False) -> Path:
    """Return the newest checkpoint of a run that is as it was written.

    Args:
        run: folder of the run.
        on_damage: whether to go on with an older one, with a warning, or to stop, if the newest is damaged.
        set_aside: rename damaged files, so that they never take the place of good ones.

    Returns:
        Path of last.ckpt; or of previous.ckpt; or of the newest other one.

    Raises:
        InputError: the newest is damaged and that is a reason to stop, or all are.
    """
    problems: list[str] = []
    for file in _candidates(run):
        problem = damage(file)
        if problem is None:
            if problems:
                rank_zero_warn(f"{' '.join(problems)} Going on from {file.name} in its place.")
            return file
        problems.append(f"the checkpoint {file} is damaged: {problem}.")
        if on_damage == "stop":
            raise InputError(f"{problems[-1]} Give another one to --ckpt_path, or set checkpoints.on_damage=previous.")
        if set_aside:
            with suppress(FileNotFoundError):  # another rank was faster
                file.replace(file.with_name(f"{file.name}{DAMAGED}"))
    raise InputError(f"{' '.join(problems)} There is no other one in {run}; start anew without --ckpt_path.")


def keep_checkpoints_in(run: Path, trainer: Trainer) -> None:
    """Let all checkpoints go to a run's folder that have no other place, where Lightning would follow the loggers.

    Args:
        run: folder of the run.
        trainer: the trainer; its ranks follow the first one.
    """
    kept = run / "checkpoints"
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = os.path.realpath(kept) if kept.is_symlink() else str(kept)


def link_checkpoints(run: Path, folder: str) -> None:
    """Let a run whose checkpoints are written elsewhere be found like any other: by a link in its folder.

    Args:
        run: folder of the run, which exists.
        folder: where its checkpoints are written.
    """
    link = run / "checkpoints"
    if "://" in folder or os.path.realpath(folder) == os.path.realpath(link):
        return
    try:
        link.symlink_to(os.path.realpath(folder), target_is_directory=True)
    except OSError as error:
        rank_zero_warn(
            f"--ckpt_path last will not find the checkpoints in {folder}: no link {link} ({error.strerror})."
        )


def _candidates(run: Path) -> Iterator[Path]:
    folder = run / "checkpoints"
    yield from (file for name in (LAST, PREVIOUS) if (file := folder / name).is_file())
    yield from sorted(folder.glob("step*.ckpt"), reverse=True)
