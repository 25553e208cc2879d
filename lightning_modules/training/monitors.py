"""Metrics that callbacks wait for, checked before the first step and not at the first validation."""

import warnings
from typing import TYPE_CHECKING

from geometry.batch import DatasetInfo
from geometry.errors import InputError
from lightning_modules.metric_base import all_scores

if TYPE_CHECKING:
    from lightning_modules.estimator import Estimator


def check_monitors(estimator: "Estimator") -> None:
    """Check that the metrics which callbacks of the trainer watch, under their attribute ``monitor``, will be there.

    Args:
        estimator: one that is set up with a trainer.

    Raises:
        InputError: no metric has such a name. Names that begin with train/ are not checked: estimators and tasks log
            what they like.
    """
    watching = [callback for callback in estimator.trainer.callbacks if getattr(callback, "monitor", None) is not None]  # type: ignore[attr-defined]
    scores = _score_names(estimator) if watching else []
    for callback in watching:
        name = callback.monitor
        if name not in scores and not name.startswith("train/"):
            known = ", ".join(scores) or "none, for there is nothing to validate on"
            raise InputError(
                f"{type(callback).__name__} monitors {name!r}, which no metric is named. Scores of this run: {known}."
            )


def _score_names(estimator: "Estimator") -> list[str]:
    """Return the names of all validation scores; none without validation."""
    if not estimator.trainer.limit_val_batches:
        return []
    metrics = [metric.stay_alone() for metric in estimator.task.make_metrics(DatasetInfo("any"))]  # no ranks yet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nothing was scored yet
        keys = list(all_scores(metrics))
    return [f"val/{dataset}/{key}" for dataset in estimator.val_dataset_names for key in keys]
