"""What this package uses of Lightning, and of the libraries around it, without their promise to keep it.

Every private name of Lightning, torchmetrics and diffusers stands here and nowhere else; those of PyTorch and of
jsonargparse stand in ``geometry``, for ``datamodules`` needs them, too. The
classes are Lightning's own with public names for what subclasses add to.
``tests/lightning_modules/test_lightning_internals.py`` holds each part against the installed version, by what it does.
"""

from collections.abc import Callable
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torchmetrics import Metric

#: Key of the number of steps that curves count, in the state of Lightning's loop over an epoch.
LOGGED_STEP = "_batches_that_stepped"


def logged_step(trainer: Trainer) -> int:
    """Return the number under which the trainer logs the optimiser step that is under way, or was the last."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def set_logged_step(trainer: Trainer, step: int) -> None:
    """Let the trainer log what comes under a number; it counts on from there.

    Args:
        trainer: the trainer.
        step: the number.
    """
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


def is_amid_step(trainer: Trainer) -> bool:
    """Return whether the micro-batch that has just ended was not the last one of its optimiser step."""
    return trainer.fit_loop._should_accumulate()


def will_validate(trainer: Trainer) -> bool:
    """Return whether the trainer validates after the batch that is about to end."""
    fit_loop = trainer.fit_loop
    return fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher)  # type: ignore[arg-type]


def leave_signals_alone(trainer: Trainer) -> None:
    """Keep a trainer from taking signals, and from asking all ranks in every micro-step whether one got SIGTERM.

    Args:
        trainer: the trainer, before it fits.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    # It would tell all ranks with a broadcast, and make the host wait for the device.
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def hold_one_copy(strategy: ModelParallelStrategy, num_devices: int) -> None:
    """Let all devices together hold one copy of the weights.

    Args:
        strategy: the strategy, before it makes its mesh of devices.
        num_devices: number of all devices, on all machines.
    """
    strategy._data_parallel_size, strategy._tensor_parallel_size = num_devices, 1


def mark_as_updated(metric: Metric) -> None:
    """Let a metric whose states were set from outside compute without a warning that nothing was added to it.

    Args:
        metric: the metric.
    """
    metric._update_count = 1


def repeated_blocks(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the classes of blocks that a model of diffusers repeats, as diffusers lists them."""
    names: Any = getattr(model, "_repeated_blocks", None) or getattr(model, "_no_split_modules", None)
    return tuple(names or ())


def checkpoints_itself(model: nn.Module) -> bool:
    """Return whether a model of diffusers can recompute its activations in the backward pass when told so."""
    return bool(getattr(model, "_supports_gradient_checkpointing", False))


class OpenModelCheckpoint(ModelCheckpoint):
    """Lightning's keeper of the best checkpoints; subclasses say how one is written and removed."""

    def save_file(self, trainer: Trainer, file: str) -> None:
        """Write a checkpoint that Lightning wants to keep.

        Args:
            trainer: the trainer.
            file: where to.
        """
        self.write_file(trainer, file)

    def remove_file(self, trainer: Trainer, file: str) -> None:
        """Remove a checkpoint that is to be kept no longer.

        Args:
            trainer: the trainer.
            file: the checkpoint.
        """
        super()._remove_checkpoint(trainer, file)

    def write_file(self, trainer: Trainer, file: str) -> None:
        """Write the trainer's state, and tell the loggers.

        Args:
            trainer: the trainer.
            file: where to.
        """
        super()._save_checkpoint(trainer, file)

    def forget_saved_step(self) -> None:
        """Let no step count as saved."""
        self._last_global_step_saved = 0

    def holds_step(self, trainer: Trainer) -> bool:
        """Return whether the last file that was written holds the step at which the trainer is."""
        return self._last_global_step_saved == trainer.global_step

    def needs_no_file(self, trainer: Trainer) -> bool:
        """Return whether there is nothing to save: the step is saved, or the trainer is not fitting."""
        return self._should_skip_saving_checkpoint(trainer)

    def name_of_step(self, trainer: Trainer) -> str:
        """Return the path of the checkpoint that keeps the step at which the trainer is."""
        return self.format_checkpoint_name(self._monitor_candidates(trainer))

    def keep_if_best(self, trainer: Trainer) -> None:
        """Keep the step at which the trainer is if its monitored metric is among the best, in place of a worse one.

        Args:
            trainer: the trainer.
        """
        self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self.save_file(trainer, filepath)

    def _remove_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        self.remove_file(trainer, filepath)


class OpenCLI(LightningCLI):
    """Lightning's command line; subclasses add to its commands.

    No checkpoint changes the configuration: what a file names is not what somebody asked for.
    """

    def add_other_commands(self, add: Callable[..., Any]) -> None:
        """Add parsers of commands that run elsewhere, for the completion of shells.

        Args:
            add: takes a name and a parser, and ``help``: one line.
        """

    def add_arguments_to_command(self, parser: LightningArgumentParser, command: str) -> None:
        """Add the options of a single command.

        Args:
            parser: its parser.
            command: its name.
        """

    def run_arguments(self, command: str) -> dict[str, Any]:
        """Return arguments of the trainer's method that the command line does not set.

        Args:
            command: name of the command, and of the method.
        """
        return {}

    @property
    def command_parser(self) -> LightningArgumentParser:
        """Parser of the command that runs."""
        return self._parser(self.subcommand)

    @property
    def made_options(self) -> Namespace:
        """Options of the command that runs, with the objects that were made of them so far."""
        options = self.config_init.get(str(self.subcommand))
        assert isinstance(options, Namespace), "classes are made once the command line is read"
        return options

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:  # noqa: ANN401
        super()._add_subcommands(parser, **kwargs)
        commands: Any = parser._subcommands_action
        self.add_other_commands(commands.add_subcommand)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:  # noqa: ANN401
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self.add_arguments_to_command(parser, subcommand)
        return parser

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return super()._prepare_subcommand_kwargs(subcommand) | self.run_arguments(subcommand)

    def _parse_ckpt_path(self) -> None:
        pass
