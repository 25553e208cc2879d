"""Keeps metrics.csv of a run that goes on: Lightning's CSVLogger would delete it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

# The curves before this start, until they are in metrics.csv again. A start that is killed meanwhile leaves it.
_BEFORE = "metrics_before.csv"


class CsvCurves(Callback):
    """Lets a run that is killed and goes on end with the metrics.csv of an undisturbed one, row by row.

    A checkpoint says how many rows had been logged when it was saved. The run goes on after these; rows that a killed
    run logged after its last checkpoint are logged again.

    Args:
        goes_on: the run is continued in its own folder.
    """

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on
        self._loggers: list[CSVLogger] = []
        self._num_rows: list[int] | None = None

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint; it stays when options change."""
        return type(self).__qualname__

    @rank_zero_only
    def put_aside(self, loggers: Sequence[Logger]) -> None:
        """Put the files aside before Lightning opens the loggers, which is before any callback's turn.

        Args:
            loggers: the trainer's loggers.
        """
        self._loggers = [logger for logger in loggers if isinstance(logger, CSVLogger)]
        for logger in self._loggers if self.goes_on else []:
            file, before = _files(logger)
            if file.is_file() and not before.is_file():
                file.replace(before)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Note how many rows are to stay.

        Args:
            state_dict: what ``state_dict`` returned.
        """
        rows = state_dict.get("rows", [])
        self._num_rows = [int(number) for number in rows] if isinstance(rows, list) else None

    def state_dict(self) -> dict[str, Any]:
        """Return how many rows every CSVLogger has; only the first rank knows."""
        for logger in self._loggers:
            logger.save()
        return {"rows": [len(_rows(_files(logger)[0])) for logger in self._loggers]} if self._loggers else {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rows before this start again, in their order.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
        """
        for number, logger in enumerate(self._loggers):
            file, before = _files(logger)
            if self.goes_on and before.is_file():
                rows = self._kept(_rows(before), number, trainer, file)
                for row in rows:
                    step = int(float(row.pop("step")))
                    logger.log_metrics({name: value for name, value in row.items() if value}, step)  # type: ignore[misc]
                logger.save()
                before.unlink()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the file back if the run ended before it began."""
        for logger in self._loggers:
            file, before = _files(logger)
            if before.is_file():
                before.replace(file)

    def _kept(self, rows: list[dict[str, str]], number: int, trainer: Trainer, file: Path) -> list[dict[str, str]]:
        if self._num_rows is None or number >= len(self._num_rows):
            return [row for row in rows if int(float(row["step"])) < trainer.global_step]
        if len(rows) < self._num_rows[number]:
            rank_zero_warn(f"{file} has lost {self._num_rows[number] - len(rows)} rows of the run so far.")
        return rows[: self._num_rows[number]]


def _files(logger: CSVLogger) -> tuple[Path, Path]:
    folder = Path(logger.log_dir)
    return folder / "metrics.csv", folder / _BEFORE


def _rows(file: Path) -> list[dict[str, str]]:
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if row.get("step")]
