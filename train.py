"""Entry point: python train.py fit|validate --config CONFIG."""

import logging
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from geometry.errors import InputError
from lightning_modules.callbacks import RunAnnouncement, Throughput, ValidationPanels, ValidationSummary
from lightning_modules.checkpoints import Checkpoints, last_checkpoint, newest_run
from lightning_modules.estimator import Estimator
from lightning_modules.progress import StepProgress

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    "max_steps": 20_000,
    "val_check_interval": 1000,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
}


class Parser(LightningArgumentParser):
    """A parser whose errors are one message, without the usage of two hundred options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave with status 2.

        Args:
            message: what is wrong.
            ex: the exception behind it.
        """
        if not self.exit_on_error:  # a parser inside another, which may try something else
            super().error(message, ex)
        _leave(message)


class OneStepCLI(LightningCLI):
    """The commands: fit and validate.

    A run's files go to ``<trainer.default_root_dir>/<name>/version_N``. A new fit gets the next free number;
    ``--ckpt_path last`` takes the newest run of that name that has a checkpoint, and goes on in its folder.
    """

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands and the arguments of their methods that are no options."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
        }

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Never unpickle a checkpoint: a file from elsewhere could run code. Print our own table of results."""
        own = {"weights_only": True} | ({"verbose": False} if subcommand == "validate" else {})
        return {**super()._prepare_subcommand_kwargs(subcommand), **own}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name, checkpoints and panels.

        Args:
            parser: the parser of a command.
        """
        parser.add_argument("--name", type=str, default="onestep", help="Name of the run; its files go to runs/NAME.")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        parser.add_lightning_class_args(ValidationPanels, "panels")

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint that ``last`` means."""
        config = self.config[self.subcommand]
        self._has_own_logger = config.trainer.logger not in (None, True)
        self._version: str | None = None
        if self.subcommand != "fit":
            self.save_config_callback = None
            self._parser(self.subcommand).callback_keys.remove("checkpoints")
        if config.get("ckpt_path") != "last" or self._has_own_logger:
            return
        runs = Path(config.trainer.default_root_dir) / config.name
        run = newest_run(runs)
        if run is not None:
            self._version = run.name
            config.ckpt_path = str(last_checkpoint(run))
        elif self.subcommand == "fit":
            config.ckpt_path = None
            rank_zero_info(f"no checkpoint in {runs} yet: starting afresh.")
        else:
            raise InputError(f"--ckpt_path last: there is no checkpoint in {runs}.")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """Return the trainer, with the run's folder and a progress bar.

        Args:
            **kwargs: arguments of the trainer that go before the configuration's.
        """
        config = self._get(self.config_init, "trainer")
        if not self._has_own_logger:
            name = self._get(self.config_init, "name")
            is_fit = self.subcommand == "fit"
            kwargs["logger"] = is_fit and TensorBoardLogger(
                config.default_root_dir, name, self._version, default_hp_metric=False
            )
        callbacks = [*(config.callbacks or []), RunAnnouncement()]
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if config.enable_progress_bar is not False and not has_bar:
            callbacks.append(StepProgress())
        return super().instantiate_trainer(callbacks=[*callbacks, Throughput(), ValidationSummary()], **kwargs)

    def after_fit(self) -> None:
        """Validate the final weights, if the last validation came before them."""
        trainer = self.trainer
        if trainer.enable_validation and self.model.last_validated_step != trainer.global_step:
            trainer.validate(self.model, datamodule=self.datamodule, verbose=False)


def main(args: ArgsType = None) -> None:
    """Run a command; mistakes that a user can mend end with ``error: ...`` and status 2.

    Args:
        args: the command line as a list; None is that of the process.
    """
    _quieten()
    try:
        OneStepCLI(
            Estimator,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"parser_mode": "omegaconf", "description": __doc__},
            parser_class=Parser,
            auto_configure_optimizers=False,
            args=args,
        )
    except InputError as error:
        _leave(_innermost(str(error)))
    except MisconfigurationException as error:
        _leave(str(error))


def _innermost(message: str) -> str:
    """Return what went wrong in a loader's worker, without the traceback that PyTorch wraps around it."""
    return message.rsplit("InputError: ", 1)[-1].strip()


def _leave(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def _quieten() -> None:
    """Hide messages that concern nobody who uses the project."""
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.addFilter(lambda record: not record.getMessage().startswith(("💡 Tip", "TPU available")))
    for message, category in (
        (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
        (r"Found \d+ module\(s\) in eval mode at the start of training", UserWarning),
        (r"The number of training batches .* is smaller than the logging interval", UserWarning),
        (r"Checkpoint directory .* exists and is not empty", UserWarning),
        (r"The `local_dir_use_symlinks` argument is deprecated", UserWarning),
    ):
        warnings.filterwarnings("ignore", message=message, category=category)


if __name__ == "__main__":
    main()
