"""What Lightning loses or miscounts when a run is saved after a step and resumed, made good."""

from lightning.pytorch import Trainer


def end_epoch_that_was_over(trainer: Trainer) -> None:
    """Let a run that was saved after the last batch of an epoch begin the next one, as it would have.

    Lightning counts the epoch, but not the start of the next; when that one is saved after its last batch, too, its end
    is not counted, and neither is any later one.

    Args:
        trainer: the trainer, at the start of training.
    """
    loop = trainer.fit_loop
    if loop.epoch_loop.restarted_on_train_batch_end and loop.epoch_loop.batch_progress.is_last_batch:
        loop.reset_restart_stage()


def metrics_to_come(trainer: Trainer) -> tuple[int, dict[str, float]] | None:
    """Return step and values that Lightning logs right after this; if the run is killed before, they would be lost.

    Args:
        trainer: the trainer, at the end of a batch that was the last one of an optimiser step.
    """
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    if (step + 1) % max(trainer.log_every_n_steps, 1) != 0:  # type: ignore[attr-defined]
        return None
    values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
    return step, values | {"epoch": trainer.current_epoch}


def validate_now(trainer: Trainer) -> None:
    """Validate before the first step, as Lightning does after one.

    Args:
        trainer: the trainer, at the start of training.
    """
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True
