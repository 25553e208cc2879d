"""Which checkpoint a run's name means, and whether that run or another of its name has a better one."""

import math
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from geometry.errors import InputError
from geometry.files.reading import read_text_file
from lightning_modules.training.mistaken_models import describe_mistake
from lightning_modules.training.run_folders import has_checkpoint, last_checkpoint, newest_run, run_number

BEST_OR_LAST = ("best", "last")
# Of a name with very many runs, the newest are looked at.
_MOST_OTHERS = 50


@dataclass(frozen=True)
class FoundRun:
    """A checkpoint, and the run that it belongs to.

    Attributes:
        folder: folder of the run, ``runs/NAME/version_N``; the one around the checkpoint where that lies elsewhere.
        checkpoint: the file.
        step: optimiser steps that the checkpoint saw.
        score: for instance ``val/rooms/abs_rel 0.1686``, of the weights in the file; empty if not known.
        better: what there is beside it, a clause each.
    """

    folder: Path
    checkpoint: Path
    step: int
    score: str = ""
    better: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        """The configuration of the run."""
        return self.folder / "config.yaml"

    def describe(self) -> str:
        """Return one line that says what was taken, and what would be better."""
        score = f", {self.score}" if self.score else ""
        taken = f"{self.folder}: {self.checkpoint.name}, step {self.step}{score}"
        return f"{taken}. Note: {'; '.join(self.better)}." if self.better else taken


class _Kept(NamedTuple):
    """A checkpoint that a run kept for its metric.

    Attributes:
        rank: the metric, or its negative where more is better: the smallest is the best.
        step: optimiser steps that it saw.
        file: the checkpoint.
        monitor: the metric.
        score: metric and value, as text.
    """

    rank: float
    step: int
    file: Path
    monitor: str
    score: str


def find_run(source: str | Path, which: str | None = None) -> FoundRun:
    """Return the checkpoint that a run's name means.

    Args:
        source: ``runs/NAME``, of which the newest run with a checkpoint is taken; ``runs/NAME/version_N``; or a
            checkpoint file.
        which: ``last``, ``best`` (by the metric ``checkpoints.monitor``), or a file; None is last.

    Raises:
        InputError: there is none.
    """
    path = Path(source).expanduser()
    run = None if path.is_file() else path if has_checkpoint(path) else newest_run(path) if path.is_dir() else None
    if run is None and (mistake := describe_mistake(path)) is not None:
        raise InputError(mistake)
    if path.is_file():
        return find_run(run_around(path), which) if which in BEST_OR_LAST else _found(path)
    if run is None:
        raise InputError(
            f"{path} is no checkpoint, no folder of a run that has one, and no folder of such runs. Give runs/NAME, "
            "runs/NAME/version_N or a .ckpt file."
        )
    if which is not None and which not in BEST_OR_LAST:
        file = Path(which).expanduser()
        if not file.is_file():
            raise InputError(f"--ckpt_path {which}: there is no such file; give best, last or the file's path.")
        return _found(file)
    kept, checkpoint = _kept(run), best_checkpoint(run) if which == "best" else last_checkpoint(run)
    step, better = _step(checkpoint), []
    if kept and kept[0].step != step:
        better = [f"{kept[0].file.name} is better ({kept[0].score}): --ckpt_path best"]
    score = next((each.score for each in kept if each.step == step), "")
    return FoundRun(run, checkpoint, step, score, better + _others(run, step, kept))


def best_checkpoint(run: Path) -> Path:
    """Return the checkpoint of a run that is best by the metric it watched.

    Args:
        run: its folder.

    Raises:
        InputError: it kept none.
    """
    if kept := _kept(run):
        return kept[0].file
    raise InputError(
        f"{run} kept no best checkpoint: it watched no metric. Take last, or train with --checkpoints.monitor METRIC "
        "--checkpoints.keep 1."
    )


def _found(file: Path) -> FoundRun:
    return FoundRun(run_around(file), file, _step(file))


def run_around(file: Path) -> Path:
    """Return the folder that holds the configuration of a checkpoint: that of the file, or the one around it.

    Args:
        file: for instance ``runs/demo/version_0/checkpoints/last.ckpt``.
    """
    folder = file.parent
    return folder if (folder / "config.yaml").is_file() or not folder.name else folder.parent


def _step(file: Path) -> int:
    from lightning_modules.training.checkpoint_content import peek_checkpoint  # slow to import

    return int(peek_checkpoint(file).get("global_step", 0))


def _kept(run: Path) -> list[_Kept]:
    """Return the checkpoints that a run kept for its metric, by configuration and file names; the best one first."""
    options: Any = {}
    with suppress(InputError, yaml.YAMLError, AttributeError):
        options = yaml.safe_load(read_text_file(run / "config.yaml")).get("checkpoints")
    monitor = options.get("monitor") if isinstance(options, dict) else None
    if not isinstance(monitor, str):
        return []
    sign, kept = (1 if options.get("mode", "min") == "min" else -1), []
    for file in (run / "checkpoints").glob("step*.ckpt"):
        found = re.fullmatch(rf"step(\d+){re.escape(metric_in_name(monitor))}(.+)\.ckpt", file.name)
        with suppress(ValueError):
            if found and math.isfinite(value := float(found[2])):
                kept.append(_Kept(sign * value, int(found[1]), file, monitor, f"{monitor} {value:.5g}"))
    return sorted(kept)


def metric_in_name(monitor: str) -> str:
    """Return how the name of a checkpoint begins to tell its metric, after ``step000123``."""
    return f"-{monitor.removeprefix('val/').replace('/', '-')}-"


def step_in_name(file: str) -> int | None:
    """Return the step that the name of a checkpoint says; None of others, such as ``last.ckpt``."""
    found = re.match(r"step(\d+)", Path(file).name)
    return int(found[1]) if found else None


def _others(run: Path, step: int, kept: list[_Kept]) -> list[str]:
    """Say which other runs of the name came further, or were better by the metric that both watched."""
    if not run.name.startswith("version_"):
        return []
    found = []
    others = [other for other in run.parent.glob("version_*") if other.name != run.name and has_checkpoint(other)]
    for other in sorted(others, key=run_number)[-_MOST_OTHERS:]:
        with suppress(InputError):
            steps = _step(last_checkpoint(other))
            words = [f"{steps} steps"] if steps > step else []
            for own, best in zip(kept[:1], _kept(other)[:1], strict=False):
                words += [best.score] if best.monitor == own.monitor and best.rank < own.rank else []
            if words:
                found.append(f"{other} has {' and '.join(words)}")
    return found
