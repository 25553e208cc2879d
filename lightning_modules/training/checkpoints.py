"""When checkpoints are written, which of them stay, and which one a run goes on from."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from geometry.errors import InputError
from lightning_modules.training.checkpoint_files import DAMAGED, LAST, PREVIOUS, also_name, damage
from lightning_modules.training.preemption import Preempted, RankAgreement, StopSignals, exit_code

OnDamage = Literal["previous", "stop"]


class Checkpoints(ModelCheckpoint):
    """Writes last.ckpt every so many steps or minutes, when the run is told to stop, and at its end.

    The one before stays as previous.ckpt. Nothing is saved between the micro-batches of an optimiser step, so that
    every checkpoint can be resumed exactly. SIGTERM and SIGUSR1 end the run after the step, with exit status 75.

    Args:
        every_n_steps: Number of optimiser steps between two checkpoints.
        every_n_minutes: Write one also when so many minutes have passed since the last.
        monitor: Metric that decides which checkpoints are best, for instance val/hypersim/abs_rel.
        mode: Whether the best value of monitor is the smallest (min) or the largest (max).
        keep: Number of checkpoints to keep beside last.ckpt: the best by monitor, or the newest without it;
            -1 keeps all, 0 none.
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
        super().__init__(
            dirpath=folder,
            filename="step{step:06d}",
            auto_insert_metric_name=False,
            monitor=monitor,
            mode=mode,
            save_top_k=keep if monitor else min(keep, 1),
            save_last=True,
            every_n_train_steps=every_n_steps,
            enable_version_counter=False,
        )
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

    @property
    def state_key(self) -> str:
        """Name of the state in a checkpoint; it stays when options change."""
        return type(self).__qualname__

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the folder, and leave requeueing to the batch script: Lightning would save files of its own for it.

        Args:
            trainer: the trainer.
            pl_module: the estimator.
            stage: fit, validate or another of Lightning's stages.
        """
        super().setup(trainer, pl_module, stage)
        self._is_tidy = False
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False

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
        """Listen to signals, and validate if the resumed run was about to when it saved."""
        self._saved_s = time.monotonic()
        self._agreement.open()
        self._signals.listen()
        self._tidy(trainer)
        # Lightning would do the same with a broadcast, and make the host wait for the device, in every micro-step.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        if self._owes_validation:
            _validate(trainer)
        self._owes_validation = False

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Save after an optimiser step if it is time, and leave if the run was told to.

        Args:
            trainer: the trainer.
            *args: not used.
            **kwargs: not used.
        """
        if trainer.fit_loop._should_accumulate() or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        is_late = self.every_n_minutes is not None and time.monotonic() - self._saved_s > 60 * self.every_n_minutes
        is_late, is_told = self._agreement.exchange(is_late, self._signals.received is not None)
        will_validate = trainer.fit_loop.epoch_loop._should_check_val_fx(
            trainer.fit_loop._data_fetcher  # type: ignore[arg-type]
        )
        if trainer.global_step == trainer.max_steps and not will_validate:
            return  # training ends right after this, and the final state is saved then
        if is_late or is_told or trainer.global_step % self._every_n_train_steps == 0:
            self._owes_validation = will_validate
            self._owed_metrics = _metrics_to_come(trainer)
            self._save(trainer)
            self._owed_metrics, self._owes_validation = None, False
        if is_told:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: steps and minutes count, not epochs."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the weights that were validated if they are among the best."""
        if self.monitor is not None and self.keep and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final weights, also where the last step is none of those that are due."""
        self._agreement.close()
        self._save(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tidy up also where there was nothing left to train."""
        self._tidy(trainer)

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
        if self._should_skip_saving_checkpoint(trainer):
            return
        for logger in trainer.loggers:
            logger.save()  # curves up to this step must not be lost if the run is killed now
        if self.monitor is None and self.keep:
            name = self.format_checkpoint_name(self._monitor_candidates(trainer))
            self._newest = [*(file for file in self._newest if file != name), name]
            self._note(name)
        outdated = self._newest[: -self.keep] if self.keep > 0 else []
        self._newest = self._newest[len(outdated) :]
        self._write(trainer, str(self._folder / LAST))
        self._saved_s = time.monotonic()
        if self.monitor is None and self.keep:
            self._save_checkpoint(trainer, self._newest[-1])
        for file in outdated:
            self._remove_checkpoint(trainer, file)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        """Keep this step under a name of its own: as another name of last.ckpt where that holds the same step."""
        self._note(filepath)
        if self._last_global_step_saved != trainer.global_step and not trainer.fit_loop._should_accumulate():
            self._write(trainer, str(self._folder / LAST))
        if self._last_global_step_saved != trainer.global_step:
            super()._save_checkpoint(trainer, filepath)  # validated amid an optimiser step: nothing to resume from
            self._last_global_step_saved = 0
            return
        if trainer.is_global_zero:
            also_name(self._folder / LAST, Path(filepath))
        trainer.strategy.barrier()

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._remove_checkpoint(trainer, filepath)
        self._named = [file for file in self._named if file != filepath]

    def _note(self, file: str) -> None:
        self._named = [*(other for other in self._named if other != file), file]

    def _tidy(self, trainer: Trainer) -> None:
        """Do what a run that was killed while saving had yet to do: give a file its name, take an older one away."""
        if self._is_tidy:
            return
        self._is_tidy = True
        kept = {*self._newest, *self.best_k_models}
        for file in set(self._named) - kept:
            self._remove_checkpoint(trainer, file)
        own = self.format_checkpoint_name(self._monitor_candidates(trainer))
        if trainer.ckpt_path and trainer.is_global_zero and own in kept and not Path(own).exists():
            also_name(Path(trainer.ckpt_path), Path(own))

    def _write(self, trainer: Trainer, file: str) -> None:
        self.last_model_path = file
        super()._save_checkpoint(trainer, file)

    def _leave(self, trainer: Trainer) -> None:
        self._agreement.close()
        signal = self._signals.received
        rank_zero_info(
            f"stopped by {signal.name if signal else 'a signal to another rank'} after step {trainer.global_step}; "
            f"everything is saved in {self.last_model_path}. The same command with --ckpt_path last goes on."
        )
        raise Preempted(exit_code())

    @property
    def _folder(self) -> Path:
        assert self.dirpath is not None, "setup has chosen a folder"
        return Path(self.dirpath)


def _metrics_to_come(trainer: Trainer) -> tuple[int, dict[str, float]] | None:
    """Return step and values that Lightning logs right after this; if the run is killed before, they would be lost."""
    step = trainer.fit_loop.epoch_loop._batches_that_stepped
    if (step + 1) % max(trainer.log_every_n_steps, 1) != 0:  # type: ignore[attr-defined]
        return None
    values = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("train/")}
    return step, values | {"epoch": float(trainer.current_epoch)}


def _validate(trainer: Trainer) -> None:
    """Validate before the first step, as Lightning does after one."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


def newest_run(folder: Path) -> Path | None:
    """Return the newest run ``version_N`` in a folder that holds a checkpoint, or None.

    Args:
        folder: folder of all runs of one name.
    """
    numbered = {int(run.name.removeprefix("version_")): run for run in folder.glob("version_*") if _is_run(run)}
    return numbered[max(numbered)] if numbered else None


def has_checkpoint(run: Path) -> bool:
    """Say whether a folder is that of a run that has saved a checkpoint.

    Args:
        run: the folder.
    """
    return next(_candidates(run), None) is not None


def last_checkpoint(run: Path, on_damage: OnDamage = "previous", set_aside: bool = False) -> Path:
    """Return the newest checkpoint of a run that is as it was written.

    Args:
        run: folder of the run.
        on_damage: whether to go on with an older one, with a warning, or to stop, if the newest is damaged.
        set_aside: rename damaged files, so that they never take the place of good ones.

    Returns:
        Path of last.ckpt; or of previous.ckpt; or of the newest other one.

    Raises:
        InputError: the newest is damaged and that is a reason to stop, or all are.
    """
    problems: list[str] = []
    for file in _candidates(run):
        problem = damage(file)
        if problem is None:
            if problems:
                rank_zero_warn(f"{' '.join(problems)} Going on from {file.name} in its place.")
            return file
        problems.append(f"the checkpoint {file} is damaged: {problem}.")
        if on_damage == "stop":
            raise InputError(f"{problems[-1]} Give another one to --ckpt_path, or set checkpoints.on_damage=previous.")
        if set_aside:
            with suppress(FileNotFoundError):  # another rank was faster
                file.replace(file.with_name(f"{file.name}{DAMAGED}"))
    raise InputError(f"{' '.join(problems)} There is no other one in {run}; start anew without --ckpt_path.")


def _candidates(run: Path) -> Iterator[Path]:
    folder = run / "checkpoints"
    yield from (file for name in (LAST, PREVIOUS) if (file := folder / name).is_file())
    yield from sorted(folder.glob("step*.ckpt"), reverse=True)


def _is_run(folder: Path) -> bool:
    return folder.name.removeprefix("version_").isdigit() and has_checkpoint(folder)
