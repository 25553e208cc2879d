"""Where results come from: what a reader needs to make them again."""

import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer

from lightning_modules.training.ema import CHECKPOINT_KEY, ExponentialMovingAverage
from lightning_modules.training.run_record import git_commit


def provenance(trainer: Trainer, checkpoint: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return precision, step, kind of weights, commit, date, command and seed of an evaluation.

    Args:
        trainer: the trainer.
        checkpoint: what was read from the checkpoint; None without one.
    """
    return {
        "precision": str(trainer.precision),
        "step": None if checkpoint is None else checkpoint.get("global_step"),
        "weights": _weights(trainer, checkpoint),
        "commit": git_commit(Path(__file__).parent),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "devices": trainer.world_size,
    }


def _weights(trainer: Trainer, checkpoint: Mapping[str, Any] | None) -> str:
    """Say whether the average of the weights was evaluated, or the weights of the last step."""
    if checkpoint is None:
        return "as the model was built"
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, ExponentialMovingAverage) and callback.is_in_place for callback in callbacks):
        return "moving average (EMA)"
    has_average = " (the checkpoint's moving average was not used)" if CHECKPOINT_KEY in checkpoint else ""
    return f"of the last step{has_average}"
