"""One run at a time in a run's folder, on however many ranks."""

from contextlib import ExitStack
from pathlib import Path

from lightning.pytorch import Trainer

from geometry.errors import InputError
from geometry.files.locks import sole_use


class RunLock:
    """Keeps other runs out of a folder; the first rank holds the lock for all.

    A run that goes on takes it before its loggers touch their files: these may be those of a run that goes on still.
    """

    def __init__(self) -> None:
        self._use = ExitStack()
        self._is_held = False

    def take(self, trainer: Trainer, folder: str | Path | None) -> None:
        """Take the folder, once; folders of other machines cannot be taken.

        Args:
            trainer: the trainer.
            folder: where checkpoints are written; None is nowhere.

        Raises:
            InputError: another run writes here, or the folder cannot be written to.
        """
        if trainer.is_global_zero and not self._is_held and folder is not None and "://" not in str(folder):
            self._use.enter_context(sole_use(Path(folder)))
            self._is_held = True

    def take_on_all(self, trainer: Trainer, folder: str | Path | None) -> None:
        """Take the folder, or refuse on every rank: see ``take``."""
        problem = None
        try:
            self.take(trainer, folder)
        except InputError as error:
            problem = str(error)
        if problem := trainer.strategy.broadcast(problem):
            raise InputError(problem)

    def release(self) -> None:
        """Give the folder free, if it is held."""
        self._is_held = False
        self._use.close()
