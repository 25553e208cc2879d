"""When checkpoints are written, and which of them stay."""

import time
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from geometry.errors import InputError
from geometry.files.paths import check_writable, given_path
from lightning_modules.lightning_internals import (
    OpenModelCheckpoint,
    is_amid_step,
    leave_signals_alone,
    will_validate,
)
from lightning_modules.training.checkpoint_files import LAST, also_name
from lightning_modules.training.found_runs import metric_in_name, step_in_name
from lightning_modules.training.preemption import Preempted, RankAgreement, StopSignals, exit_code
from lightning_modules.training.resuming import (
    continue_epochs,
    metrics_to_come,
    start_next_step_whole,
    validate_now,
)
from lightning_modules.training.run_folders import OnDamage
from lightning_modules.training.run_lock import RunLock


class Checkpoints(OpenModelCheckpoint):
    """Writes last.ckpt every so many steps or minutes, when the run is told to stop, and at its end.

    The one before stays as previous.ckpt. Nothing is saved between the micro-batches of an optimiser step, so that
    every checkpoint can be resumed exactly. SIGTERM, SIGUSR1 and SIGHUP end the run after the step, with exit status
    75, and so does Ctrl-C, with 130.

    Args:
        every_n_steps: Number of optimiser steps between two checkpoints.
        every_n_minutes: Write one also when so many minutes have passed since the last.
        monitor: Metric that decides which checkpoints are best, for instance val/hypersim/abs_rel.
        mode: Whether the best value of monitor is the smallest (min) or the largest (max).
        keep: Number of checkpoints to keep beside last.ckpt: the best by monitor, or the newest without it;
            -1 keeps all, 0 none. Names hold step and metric.
        folder: Where to write; None is the folder checkpoints in the run's own folder.
        on_damage: What --ckpt_path last does if last.ckpt is cut off or corrupt. Use the previous checkpoint with a
            warning, or stop.
    """

    def __init__(
        self,
        every_n_steps: int = 1000,
        every_n_minutes: float | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        keep: int = 0,
        folder: str | None = None,
        on_damage: OnDamage = "previous",
    ) -> None:
        if every_n_steps < 1 or keep < -1 or (every_n_minutes is not None and not every_n_minutes > 0):
            raise InputError(
                "checkpoints needs every_n_steps of at least 1, every_n_minutes above 0 and keep of at least -1, got "
                f"{every_n_steps}, {every_n_minutes} and {keep}."
            )
        if monitor is not None and not keep:
            raise InputError(
                f"checkpoints.monitor {monitor!r} chooses which checkpoints to keep, but checkpoints.keep is 0; set it "
                "to at least 1."
            )
        if folder is not None and "://" not in folder:
            folder = str(given_path(folder, "checkpoints.folder"))
            check_writable(Path(folder), "checkpoints.folder")
        metric = "" if monitor is None else f"{metric_in_name(monitor)}{{{monitor}:.5g}}"
        super().__init__(
            dirpath=folder,
            filename=f"step{{step:06d}}{metric}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode,
            save_top_k=keep if monitor else min(keep, 1),
            save_last=True,
            every_n_train_steps=every_n_steps,
            enable_version_counter=False,
        )
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.every_n_minutes = every_n_minutes
        self.on_damage: OnDamage = on_damage
        self._newest: list[str] = []
        self._named: list[str] = []  # every file under a step's name that may be there
        self._is_tidy = False
        self._owes_validation = False
        self._owed_metrics: tuple[int, dict[str, float]] | None = None
        self._saved_s = time.monotonic()
        self._signals = StopSignals()
        self._agreement = RankAgreement()
        self.lock = RunLock()

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint; it stays when options change."""
        return type(self).__qualname__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder, and take the signals.

        Lightning's own handlers would save files of their own under SLURM, end a run with status 0 before its first
        step is saved or its last validation is over, and call all ranks together where only one was told.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            stage: fit, validate or another of Lightning's stages.
        """
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.lock.take_on_all(trainer, self.dirpath)
        self._is_tidy = False
        leave_signals_alone(trainer)
        launcher = trainer.strategy.launcher
        self._signals.leave_at_once(pass_on=launcher.kill if launcher is not None else None)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the resumed run had yet to log after it saved, also where there is nothing left to train.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
        """
        if self._owed_metrics is not None:
            step, metrics = self._owed_metrics
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step)
        self._owed_metrics = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals, and do what the resumed run was about to when it saved."""
        continue_epochs(trainer)
        start_next_step_whole(trainer)
        self._saved_s = time.monotonic()
        self._agreement.open()
        self._signals.note()
        self._tidy(trainer)
        if self._owes_validation:
            validate_now(trainer)
        self._owes_validation = False

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Save after an optimiser step if it is time, and leave if the run was told to.

        Args:
            trainer: the trainer.
            *args: not used.
            **kwargs: not used.
        """
        if is_amid_step(trainer) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        is_late = self.every_n_minutes is not None and time.monotonic() - self._saved_s > 60 * self.every_n_minutes
        is_late, is_told = self._agreement.exchange(is_late, self._signals.received is not None)
        owes_validation = will_validate(trainer)
        if trainer.global_step == trainer.max_steps and not owes_validation:
            return  # training ends right after this, and the final state is saved then
        if is_late or is_told or trainer.global_step % self.every_n_steps == 0:
            self._owes_validation = owes_validation
            self._owed_metrics = metrics_to_come(trainer)
            self._save(trainer)
            self._owed_metrics, self._owes_validation = None, False
        if is_told:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: steps and minutes count, not epochs."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights that were validated if they are among the best."""
        if self.monitor is not None and self.keep and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.keep_if_best(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final weights, also where the last step is none of those that are due."""
        self._agreement.close()
        self._save(trainer)
        self._signals.leave_at_once()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tidy up also where there was nothing left to train."""
        self._tidy(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: object) -> None:
        """Give signals and folder back."""
        self._signals.give_back()
        self.lock.release()

    on_exception = teardown  # type: ignore[assignment]

    def save_file(self, trainer: Trainer, file: str) -> None:
        """Keep this step under a name of its own: as another name of last.ckpt where that holds the same step.

        Args:
            trainer: the trainer.
            file: the name.
        """
        self._note(file)
        if not self.holds_step(trainer) and not is_amid_step(trainer):
            self._write(trainer, str(self._folder / LAST))
        if not self.holds_step(trainer):
            self.write_file(trainer, file)  # validated amid an optimiser step: nothing to resume from
            self.forget_saved_step()
            return
        if trainer.is_global_zero:
            also_name(self._folder / LAST, Path(file))
        trainer.strategy.barrier()

    def remove_file(self, trainer: Trainer, file: str) -> None:
        """Remove a checkpoint, and let it be forgotten that it may be there.

        Args:
            trainer: the trainer.
            file: the checkpoint.
        """
        super().remove_file(trainer, file)
        self._named = [other for other in self._named if other != file]

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept, and what the run was about to do when it saved."""
        own = {"newest": self._newest, "named": self._named, "owes_validation": self._owes_validation}
        return super().state_dict() | own | {"owed_metrics": self._owed_metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where a run stopped.

        Args:
            state_dict: what ``state_dict`` returned.
        """
        super().load_state_dict(state_dict)
        if self.dirpath == state_dict["dirpath"]:
            self._newest = list(state_dict.get("newest", []))
            self._named = list(state_dict.get("named", []))
        self._owes_validation = state_dict.get("owes_validation", False)
        self._owed_metrics = state_dict.get("owed_metrics")

    def _save(self, trainer: Trainer) -> None:
        """Write last.ckpt, unless it holds this step already; keep it under the step's name, too, if asked."""
        if self.needs_no_file(trainer):
            return
        for logger in trainer.loggers:
            logger.save()  # curves up to this step must not be lost if the run is killed now
        if self.monitor is None and self.keep:
            name = self.name_of_step(trainer)
            self._newest = [*(file for file in self._newest if file != name), name]
            self._note(name)
        outdated = self._newest[: -self.keep] if self.keep > 0 else []
        self._newest = self._newest[len(outdated) :]
        self._write(trainer, str(self._folder / LAST))
        self._saved_s = time.monotonic()
        if self.monitor is None and self.keep:
            self.save_file(trainer, self._newest[-1])
        for file in outdated:
            self.remove_file(trainer, file)

    def _note(self, file: str) -> None:
        self._named = [*(other for other in self._named if other != file), file]

    def _tidy(self, trainer: Trainer) -> None:
        """Do what a run that was killed while saving had yet to do: give a file its name, take an older one away."""
        if self._is_tidy:
            return
        self._is_tidy = True
        kept = {*self._newest, *self.best_k_models}
        for file in set(self._named) - kept:
            self.remove_file(trainer, file)
        if trainer.ckpt_path and trainer.is_global_zero:
            for own in (name for name in kept if step_in_name(name) == trainer.global_step and not Path(name).exists()):
                also_name(Path(trainer.ckpt_path), Path(own))

    def _write(self, trainer: Trainer, file: str) -> None:
        self.last_model_path = file
        self.write_file(trainer, file)

    def _leave(self, trainer: Trainer) -> None:
        self._agreement.close()
        signal = self._signals.received
        rank_zero_info(
            f"stopped by {signal.name if signal else 'a signal to another rank'} after step {trainer.global_step}; "
            f"everything is saved in {self.last_model_path}. The same command with --ckpt_path last goes on."
        )
        raise Preempted(exit_code(signal))

    @property
    def _folder(self) -> Path:
        assert self.dirpath is not None, "setup has chosen a folder"
        return Path(self.dirpath)
