"""Keeps metrics.csv of a run that goes on: Lightning's CSVLogger would delete it."""

import csv
import sys
from collections.abc import Iterator, Sequence
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn

from geometry.errors import InputError
from geometry.files.limits import MAX_CURVES_BYTES
from geometry.files.reading import open_regular_file

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
        is_known = isinstance(rows, list) and all(type(number) is int and number >= 0 for number in rows)
        self._num_rows = rows if is_known else None

    def state_dict(self) -> dict[str, Any]:
        """Return how many rows every CSVLogger has; only the first rank knows."""
        for logger in self._loggers:
            logger.save()
        # What this run wrote itself may have any length.
        counts = [sum(1 for _ in _rows(_files(logger)[0], sys.maxsize)) for logger in self._loggers]
        return {"rows": counts} if self._loggers else {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the rows before this start again, in their order.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
        """
        for number, logger in enumerate(self._loggers):
            before = _files(logger)[1]
            if self.goes_on and before.is_file():
                self._log_again(before, logger, number, trainer.global_step)
                logger.save()
                before.unlink()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the file back if the run ended before it began."""
        for logger in self._loggers:
            file, before = _files(logger)
            if before.is_file():
                before.replace(file)

    def _log_again(self, before: Path, logger: CSVLogger, number: int, global_step: int) -> None:
        """Log the rows again that a checkpoint counted; all below its step where it did not count them."""
        is_counted = self._num_rows is not None and number < len(self._num_rows)
        num_rows = self._num_rows[number] if self._num_rows is not None and is_counted else None
        num_logged = 0
        for step, row in islice(_rows(before), num_rows):
            if is_counted or step < global_step:
                logger.log_metrics({name: value for name, value in row.items() if value}, step)  # type: ignore[misc]
            num_logged += 1
        if num_rows is not None and num_logged < num_rows:
            rank_zero_warn(f"{_files(logger)[0]} has lost {num_rows - num_logged} rows of the run so far.")


def _files(logger: CSVLogger) -> tuple[Path, Path]:
    folder = Path(logger.log_dir)
    return folder / "metrics.csv", folder / _BEFORE


def _rows(file: Path, max_bytes: int = MAX_CURVES_BYTES) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the step and the values of every row that has a step.

    Raises:
        InputError: the file is no regular file, larger, or no table of metrics.
    """
    try:
        with open_regular_file(file, max_bytes) as stream, TextIOWrapper(stream, encoding="utf-8", newline="") as text:
            for row in csv.DictReader(text):
                if None in row:
                    raise csv.Error("a row has more columns than the first")
                if step := row.pop("step", ""):
                    yield int(float(step)), row
    except FileNotFoundError:
        return
    except InputError:
        raise
    except (csv.Error, ValueError, OverflowError, OSError) as error:
        place = file.with_name("metrics.csv")  # where it is put back
        raise InputError(f"{place} cannot be read ({error}). Move it away, and the run goes on without it.") from error
