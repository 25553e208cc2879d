"""Metrics that callbacks wait for, checked before the first step, or at the first that is logged, not after hours."""

import warnings
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from geometry.batch import DatasetInfo
from geometry.errors import InputError
from lightning_modules.metrics.base import all_scores
from lightning_modules.training.logging_steps import is_logging_step
from lightning_modules.training.trained_module import TrainedModule


def check_monitors(estimator: TrainedModule) -> None:
    """Check that the metrics which callbacks of the trainer watch, under their attribute ``monitor``, will be there.

    Args:
        estimator: one that is set up with a trainer.

    Raises:
        InputError: no metric has such a name. Names that begin with train/ are known when a step was logged: see
            ``MonitoredCurves``.
    """
    watching = _watching(estimator.trainer)
    scores = _score_names(estimator) if watching else []
    for callback in watching:
        name = callback.monitor
        if name not in scores and not name.startswith("train/"):
            known = ", ".join(scores) or "none, for there is nothing to validate on"
            raise InputError(
                f"{type(callback).__name__} monitors {name!r}, which no metric is named. Scores of this run: {known}."
            )


class MonitoredCurves(Callback):
    """Ends a run at its first logged step if a callback watches a curve train/... that nothing logs.

    Such a callback would wait for ever, or stop the run at its first validation.
    """

    def __init__(self) -> None:
        self._is_checked = False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Check the names, once.

        Raises:
            InputError: no curve has such a name.
        """
        if self._is_checked or not trainer.global_step or not is_logging_step(trainer, trainer.global_step):
            return
        self._is_checked = True
        curves = sorted(name for name in trainer.callback_metrics if name.startswith("train/"))
        for callback in _watching(trainer):
            if callback.monitor.startswith("train/") and callback.monitor not in curves:
                raise InputError(
                    f"{type(callback).__name__} monitors {callback.monitor!r}, which nothing logs. Curves of this run: "
                    f"{', '.join(curves)}."
                )


def _watching(trainer: Trainer) -> list[Any]:
    return [callback for callback in trainer.callbacks if getattr(callback, "monitor", None) is not None]  # type: ignore[attr-defined]


def _score_names(estimator: TrainedModule) -> list[str]:
    """Return the names of all validation scores; none without validation."""
    if not estimator.trainer.limit_val_batches:
        return []
    metrics = [metric.stay_alone() for metric in estimator.task.make_metrics(DatasetInfo("any"))]  # no ranks yet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nothing was scored yet
        keys = list(all_scores(metrics))
    return [f"val/{dataset}/{key}" for dataset in estimator.val_dataset_names for key in keys]
