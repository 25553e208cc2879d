"""What Lightning loses or miscounts when a run is saved after a step and resumed, made good."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch import Trainer

from lightning_modules.lightning_internals import logged_step, set_logged_step
from lightning_modules.training.logging_steps import is_logging_step


def continue_epochs(trainer: Trainer) -> None:
    """Let epochs go on as if the run had not been interrupted.

    Lightning counts an epoch that a run was saved at the last batch of, but not the start of the next; when that one is
    saved after its last batch, too, its end is not counted, and neither is any later one. A run that is extended would
    begin with an epoch without batches if it ended with an epoch; if it ended within one, that would count twice.

    Args:
        trainer: the trainer, at the start of training.
    """
    loop = trainer.fit_loop
    is_over = loop.epoch_loop.batch_progress.is_last_batch
    if loop.epoch_loop.restarted_on_train_batch_end and is_over:
        loop.reset_restart_stage()
    elif loop.epoch_loop.restarted_on_last and is_over:
        loop.epoch_loop.restarting = False
    elif loop.epoch_loop.restarted_on_last:
        for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
            progress.processed -= 1  # type: ignore[attr-defined]
            progress.completed -= 1
        loop.update_restart_stage()


def count_logged_steps_anew(trainer: Trainer) -> None:
    """Let the next optimiser step be logged under its own number.

    Lightning counts the steps of its curves apart from those of the optimiser. When a run is extended whose last step
    was one to validate after, it counts a step that it does not take.

    Args:
        trainer: the trainer, at the start of a micro-batch.
    """
    set_logged_step(trainer, trainer.global_step)


@contextmanager
def logged_under_last_step(trainer: Trainer) -> Iterator[None]:
    """Log a validation after the end of training under the step and epoch that it follows, as one within training.

    Args:
        trainer: the trainer, after fit.
    """
    epochs = trainer.fit_loop.epoch_progress.current
    step, completed = logged_step(trainer), epochs.completed
    set_logged_step(trainer, max(trainer.global_step - 1, 0))
    epochs.completed = max(epochs.ready - 1, 0)
    yield
    set_logged_step(trainer, step)
    epochs.completed = completed


def start_next_step_whole(trainer: Trainer) -> None:
    """Let the next optimiser step have all of its micro-batches after a change of accumulate_grad_batches.

    Lightning counts micro-batches from the start of the epoch, and ends a step where the count is a multiple. The epoch
    becomes longer by as many micro-batches as lie beyond a multiple.

    Args:
        trainer: the trainer, at the start of training, between two optimiser steps.
    """
    progress = trainer.fit_loop.epoch_loop.batch_progress
    beyond = progress.current.ready % trainer.accumulate_grad_batches
    if beyond and not progress.is_last_batch:
        for stage in ("ready", "started", "processed", "completed"):
            setattr(progress.current, stage, getattr(progress.current, stage) - beyond)


def metrics_to_come(trainer: Trainer) -> tuple[int, dict[str, float]] | None:
    """Return step and values that Lightning logs right after this; if the run is killed before, they would be lost.

    Args:
        trainer: the trainer, at the end of a batch that was the last one of an optimiser step.
    """
    step = logged_step(trainer)
    if not is_logging_step(trainer, step + 1):
        return None
    values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
    return step, values | {"epoch": trainer.current_epoch}


def validate_now(trainer: Trainer) -> None:
    """Validate before the first step, as Lightning does after one.

    Args:
        trainer: the trainer, at the start of training.
    """
    fit_loop = trainer.fit_loop
    epochs, loop = fit_loop.epoch_progress.current, fit_loop.epoch_loop
    # Lightning has counted an epoch that ended with the batch before, of which this validation is a part.
    counted = int(loop.restarted_on_train_batch_end and loop.batch_progress.is_last_batch)
    loop.val_loop.restarting = False
    epochs.completed -= counted
    trainer.validating = True
    loop.val_loop.run()
    trainer.training = True
    epochs.completed += counted
