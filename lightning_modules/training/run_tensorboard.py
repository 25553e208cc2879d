"""TensorBoard of a run: curves without the count of epochs, and settings that runs are compared by."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch.utils.tensorboard.summary import hparams


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger for TensorBoard without the curve ``epoch``, which would be the first card."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars.

        Args:
            metrics: scalars by name.
            step: optimiser step.
        """
        kept = {name: value for name, value in metrics.items() if name != "epoch"}
        if kept:
            super().log_metrics(kept, step)


@rank_zero_only
def show_settings(logger: TensorBoardLogger, settings: Mapping[str, Any], scores: Sequence[str]) -> None:
    """Fill the tab *HParams*: a row per run, with its settings beside its scores.

    Args:
        logger: the logger.
        settings: plain values by dotted name.
        scores: names of the curves that are the scores.
    """
    shown = {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}
    writer = logger.experiment.file_writer
    for summary in hparams(shown, dict.fromkeys(scores, 0.0)):
        writer.add_summary(summary)
