"""The scores of a run's validations, kept in the run's folder whatever its logger."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from geometry.errors import InputError
from geometry.files.limits import MIB
from geometry.files.reading import read_text_file
from lightning_modules.estimator import Estimator
from lightning_modules.evaluation.report import write_file

FILE = "val_scores.json"
_MAX_BYTES = 16 * MIB


class ValidationScores(Callback):
    """Writes the scores of every validation of fit into ``val_scores.json``, by the optimiser steps before it.

    A run that goes on drops what lies ahead of it: it will be validated again.

    Args:
        folder: folder of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._scores: dict[int, dict[str, float]] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Read what the run had scored before."""
        self._scores = self._scored_until(trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: Estimator) -> None:  # type: ignore[override]
        """Write the scores; only the first rank does."""
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        if scores and trainer.is_global_zero and not trainer.sanity_checking and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            if self._scores is None:  # a run that had no step left to train
                self._scores = self._scored_until(trainer.global_step)
            self._scores[trainer.global_step] = scores
            steps = [{"step": step, "scores": self._scores[step]} for step in sorted(self._scores)]
            write_file(self._file, json.dumps(steps, indent=1) + "\n")

    def _scored_until(self, last: int) -> dict[int, dict[str, float]]:
        return {step: scores for step, scores in read_scores(self._file.parent).items() if step <= last}


def read_scores(run: Path) -> dict[int, dict[str, float]]:
    """Return the scores of a run's validations, by the optimiser steps before them; empty if none can be read.

    Args:
        run: folder of the run.
    """
    try:
        content: Any = json.loads(read_text_file(run / FILE, _MAX_BYTES))
        return {
            int(entry["step"]): {str(name): float(value) for name, value in entry["scores"].items()}
            for entry in content
        }
    except (InputError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return {}
