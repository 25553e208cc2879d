"""Which checkpoint a run's name means, and whether that run or another of its name has a better one."""

import math
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from geometry.errors import InputError
from geometry.files.reading import read_text_file
from lightning_modules.training.mistaken_models import describe_mistake
from lightning_modules.training.run_folders import has_checkpoint, last_checkpoint, newest_run

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


@dataclass(frozen=True)
class _Kept:
    """A checkpoint that a run kept for its metric."""

    file: Path
    step: int
    value: float


@dataclass(frozen=True)
class _Scores:
    """The checkpoints that a run kept for its metric.

    Attributes:
        monitor: the metric; None if the run watched none.
        is_min: less is better.
        kept: the checkpoints, the best one first.
    """

    monitor: str | None
    is_min: bool
    kept: list[_Kept]

    def text(self, kept: _Kept | None) -> str:
        return f"{self.monitor} {kept.value:.5g}" if kept is not None else ""

    def beaten_by(self, other: "_Scores") -> str:
        """Return the score of another run if it is better by the same metric, or nothing."""
        if self.monitor != other.monitor or not self.kept or not other.kept:
            return ""
        difference = other.kept[0].value - self.kept[0].value
        return other.text(other.kept[0]) if (difference < 0 if self.is_min else difference > 0) else ""


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
        if which in BEST_OR_LAST:
            return find_run(_run_around(path), which)
        return _found(path)
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
    last, scores = last_checkpoint(run), _scores(run)
    if which == "best":
        best = best_checkpoint(run)
        step = _step(best)
        return FoundRun(run, best, step, scores.text(_of_step(scores, step)), _others(run, step, scores))
    step = _step(last)
    return FoundRun(run, last, step, scores.text(_of_step(scores, step)), _better(run, step, scores))


def best_checkpoint(run: Path) -> Path:
    """Return the checkpoint of a run that is best by the metric it watched.

    Args:
        run: its folder.

    Raises:
        InputError: it kept none.
    """
    if scores := _scores(run).kept:
        return scores[0].file
    state = _content(last_checkpoint(run)).get("callbacks", {}).get("Checkpoints", {})
    named = str(state.get("best_model_path") or "")  # as it was before names held the metric
    if not named or not state.get("monitor"):
        raise InputError(
            f"{run} kept no best checkpoint: it watched no metric. Take last, or train with --checkpoints.monitor "
            "METRIC --checkpoints.keep 1."
        )
    file = run / "checkpoints" / Path(named).name  # also where the run was moved
    if not file.is_file():
        raise InputError(f"{run}: its best checkpoint {file.name} is not there any more. Take last.")
    return file


def _found(file: Path) -> FoundRun:
    step = _step(file)
    return FoundRun(_run_around(file), file, step)


def _run_around(file: Path) -> Path:
    """Return the folder that holds the configuration of a checkpoint: that of the file, or the one around it."""
    folder = file.parent
    return folder if (folder / "config.yaml").is_file() or not folder.name else folder.parent


def _content(file: Path) -> dict[str, Any]:
    from lightning_modules.training.checkpoint_content import peek_checkpoint  # slow to import

    return peek_checkpoint(file)


def _step(file: Path) -> int:
    return int(_content(file).get("global_step", 0))


def _scores(run: Path) -> _Scores:
    """Read the metric from a run's configuration, and its values from the names of the checkpoints."""
    options: Any = {}
    with suppress(InputError, yaml.YAMLError, AttributeError):
        options = yaml.safe_load(read_text_file(run / "config.yaml")).get("checkpoints")
    monitor = options.get("monitor") if isinstance(options, dict) else None
    if not isinstance(monitor, str):
        return _Scores(None, True, [])
    is_min = options.get("mode", "min") == "min"
    kept = []
    for file in (run / "checkpoints").glob("step*.ckpt"):
        found = re.fullmatch(rf"step(\d+){re.escape(metric_in_name(monitor))}(.+)\.ckpt", file.name)
        with suppress(ValueError):
            if found and math.isfinite(value := float(found[2])):
                kept.append(_Kept(file, int(found[1]), value))
    return _Scores(monitor, is_min, sorted(kept, key=lambda each: each.value if is_min else -each.value))


def metric_in_name(monitor: str) -> str:
    """Return how the name of a checkpoint begins to tell its metric, after ``step000123``."""
    return f"-{monitor.removeprefix('val/').replace('/', '-')}-"


def step_in_name(file: str) -> int | None:
    """Return the step that the name of a checkpoint says; None of others, such as ``last.ckpt``."""
    found = re.match(r"step(\d+)", Path(file).name)
    return int(found[1]) if found else None


def _of_step(scores: _Scores, step: int) -> _Kept | None:
    return next((kept for kept in scores.kept if kept.step == step), None)


def _better(run: Path, step: int, scores: _Scores) -> list[str]:
    """Say that a step before the last one was better, or another run of the name."""
    best = scores.kept[0] if scores.kept else None
    own = []
    if best is not None and best.step != step:
        own = [f"{best.file.name} is better ({scores.text(best)}): --ckpt_path best"]
    return own + _others(run, step, scores)


def _others(run: Path, step: int, scores: _Scores) -> list[str]:
    """Say which other runs of the name came further, or were better by the metric that both watched."""
    if not run.name.startswith("version_"):
        return []
    found = []
    others = [other for other in run.parent.glob("version_*") if other.name != run.name and has_checkpoint(other)]
    for other in sorted(others, key=_number)[-_MOST_OTHERS:]:
        with suppress(InputError):
            steps = _step(last_checkpoint(other))
            more, better = f"{steps} steps" if steps > step else "", scores.beaten_by(_scores(other))
            if more or better:
                found.append(f"{other} has {' and '.join(filter(None, [more, better]))}")
    return found


def _number(run: Path) -> int:
    number = run.name.removeprefix("version_")
    return int(number) if number.isdigit() else -1
