"""The commands ``onestep fit``, ``validate`` and ``test``, which need a trainer."""

import sys
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from geometry.command_line.messages import leave
from geometry.errors import InputError, is_lack_of_memory
from lightning_modules.command_line.console import input_error_behind, quieten
from lightning_modules.command_line.links import modalities_of
from lightning_modules.command_line.parser import HelpAll, TrainerParser
from lightning_modules.command_line.run_option import COMMANDS_WITH_RUN, RUN_HELP, name_run
from lightning_modules.command_line.settings import settle
from lightning_modules.command_line.spelling import spelled
from lightning_modules.command_line.stopping import command_of, told_when_stopped
from lightning_modules.estimator import Estimator
from lightning_modules.evaluation.callback import Evaluation, begin_evaluation
from lightning_modules.lightning_internals import OpenCLI
from lightning_modules.training.attention import Attention, prefer_attention
from lightning_modules.training.callbacks import (
    RunAnnouncement,
    Throughput,
    ValidationPanels,
    ValidationSummary,
    describe_lack_of_scores,
)
from lightning_modules.training.checkpoint_files import DurableCheckpointIO
from lightning_modules.training.checkpoints import Checkpoints
from lightning_modules.training.csv_curves import CsvCurves
from lightning_modules.training.ema import ExponentialMovingAverage
from lightning_modules.training.loggers import ServiceFlush, check_packages, close_services, open_services, placed
from lightning_modules.training.monitoring import MemoryPeak, UpdateRatio
from lightning_modules.training.monitors import MonitoredCurves
from lightning_modules.training.precision import TF32, set_tf32
from lightning_modules.training.preemption import StopSignals
from lightning_modules.training.progress import StepProgress
from lightning_modules.training.resuming import logged_under_last_step
from lightning_modules.training.run_choice import choose_run
from lightning_modules.training.run_folders import keep_checkpoints_in
from lightning_modules.training.run_record import RunRecord
from lightning_modules.training.run_settings import RunSettings, plain_config
from lightning_modules.training.run_tensorboard import RunTensorBoard
from lightning_modules.training.val_scores import ValidationScores

TF32_HELP = (
    "Where GPUs may round float32 to TF32: none, convolutions (PyTorch's default, and the paper's), or all, which is "
    "fastest."
)
ATTENTION_HELP = (
    "Kernel of attention: flash, efficient, cudnn or math; where it cannot be used, the next best. By default, PyTorch "
    "chooses."
)

TRAINER_DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    "max_steps": 20_000,
    "val_check_interval": None,
    "check_val_every_n_epoch": None,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
    "use_distributed_sampler": False,
    "enable_model_summary": False,
}
DESCRIPTIONS = {
    "fit": "Train a model; validate it while it trains, and at the end.",
    "validate": "Score a trained model on the validation data of its configuration.",
    "test": "Score a trained model on benchmarks, and write scores, predictions and visualisations.",
}
# Against a lack of memory.
REMEDIES = {
    "fit": (
        "Lower data.batch_size and raise trainer.accumulate_grad_batches by the same factor, or ask onestep plan, with "
        "the same --config options and --gpu, what fits. --ckpt_path last goes on from what was saved."
    ),
    "validate": "Lower data.val_batch_size.",
    "test": "Lower data.val_batch_size, or data.longest_side_px of benchmarks.",
}
EPILOG = (
    "Model and data are sections of the configuration; any of their options may stand here, too, for instance "
    "--data.batch_size 4 or --model.optimizer.lr 1e-5. onestep {command} --help_all lists the other options, "
    "onestep {command} --model.help CLASS and --data.help CLASS those of a class."
)


class OneStepCLI(OpenCLI):
    """The commands that need a trainer: fit, validate and test.

    A run's files go to ``<trainer.default_root_dir>/<name>/version_N``. A new fit gets the next free number;
    ``--ckpt_path last`` takes the newest run of that name that has a checkpoint, and goes on in its folder.
    """

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the commands and the arguments of their methods that are no options."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
            "test": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's name, checkpoints, average and panels, and let the data follow the task.

        Args:
            parser: the parser of a command.
        """
        parser.add_argument("--name", type=str, default="onestep", help="Name of the run; its files go to runs/NAME.")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        parser.add_argument("--tf32", type=TF32, default="convolutions", help=TF32_HELP)
        parser.add_argument("--attention", type=Attention, default="auto", help=ATTENTION_HELP)
        parser.add_lightning_class_args(ExponentialMovingAverage, "ema")
        parser.add_lightning_class_args(ValidationPanels, "panels")
        parser.link_arguments("model.init_args.task", "data.init_args.modalities", compute_fn=modalities_of)

    def add_arguments_to_command(self, parser: LightningArgumentParser, command: str) -> None:
        """Add what belongs to a single command.

        Args:
            parser: its parser.
            command: its name.
        """
        assert isinstance(parser, TrainerParser)
        parser.help_is_short = True
        parser.add_argument("--help_all", action=HelpAll, help="List all options, and exit.")
        if command in COMMANDS_WITH_RUN:
            parser.add_argument("--run", type=str, default=None, help=RUN_HELP)
        if command == "test":
            parser.add_lightning_class_args(Evaluation, "evaluation")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Read the command line, and check what needs no model and no data.

        Args:
            parser: the parser of all commands.
            args: the command line.
        """
        words = sys.argv[1:] if args is None else args
        super().parse_arguments(parser, name_run(spelled(words)) if isinstance(words, list) else words)
        settle(self.config.subcommand, self.config[self.config.subcommand])

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint that ``last`` means."""
        config = self._options()
        set_tf32(config.tf32)
        prefer_attention(config.attention)
        check_packages(config.trainer.logger)
        if self.subcommand != "fit":
            self.save_config_callback = None
        if self.subcommand != "fit" or config.trainer.enable_checkpointing is False:
            self.command_parser.callback_keys.remove("checkpoints")
        else:
            StopSignals().leave_at_once()  # until there are steps to finish
        self._run = choose_run(config.as_dict(), self.subcommand == "fit")
        self._curves = CsvCurves(self._run.goes_on)
        config.ckpt_path = self._run.checkpoint
        self.save_config_kwargs |= {"folder": self._run.folder}

    def instantiate_classes(self) -> None:
        """Make model, data and trainer; a run that goes on logs where it did before.

        A checkpoint of another kind of run is refused before anything is loaded.
        """
        self._settings = RunSettings(plain_config(self.command_parser, self._options()))
        self._settings.check(self._options().get("ckpt_path"), self.subcommand == "fit")
        with placed(self._options().trainer.logger, self._run.folder, self._run.goes_on):
            super().instantiate_classes()
        if self._run.goes_on:
            for callback in self.trainer.checkpoint_callbacks:
                if isinstance(callback, Checkpoints):
                    callback.lock.take(self.trainer, callback.dirpath)
        open_services(self.trainer.loggers)
        self._curves.put_aside(self.trainer.loggers)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:  # noqa: ANN401
        """Return the trainer, with the run's folder and a progress bar.

        Args:
            **kwargs: arguments of the trainer that go before the configuration's.
        """
        config, name = self.made_options.trainer, self.made_options.name
        is_fit = self.subcommand == "fit"
        if config.logger in (None, True):
            place = (config.default_root_dir, name, self._run.folder.name)
            kwargs["logger"] = RunTensorBoard(*place, default_hp_metric=False) if is_fit else False
        kwargs["plugins"] = self._plugins(config)
        try:
            trainer = super().instantiate_trainer(callbacks=self._callbacks(config), **kwargs)
        except (TypeError, ValueError, RuntimeError, ImportError) as error:
            raise InputError(f"the trainer cannot be set up like this: {error}") from error
        if is_fit:
            keep_checkpoints_in(self._run.folder, trainer)
        return trainer

    def after_fit(self) -> None:
        """Validate the final weights, if the last validation came before them."""
        trainer = self.trainer
        if trainer.enable_validation and self.model.last_validated_step != trainer.global_step:
            with logged_under_last_step(trainer):
                trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
            if problem := describe_lack_of_scores(trainer, self.model):
                rank_zero_warn(problem)
        close_services(self.trainer.loggers)

    def after_validate(self) -> None:
        """Say so if there was nothing to validate on, or nothing came of it."""
        if self.model.last_validated_step < 0:
            raise InputError(
                "there is nothing to validate on: no data set of the configuration has a split val with samples. Name "
                "one in data.val_datasets."
            )
        if problem := describe_lack_of_scores(self.trainer, self.model):
            raise InputError(problem)

    def before_test(self) -> None:
        """Tell the evaluation what is evaluated."""
        config = self._options()
        begin_evaluation(self.trainer, config.name, config.model.as_dict(), config.ckpt_path)

    def run_arguments(self, command: str) -> dict[str, Any]:
        """Never unpickle a checkpoint: a file from elsewhere could run code. Print our own table of results.

        Args:
            command: name of the command.
        """
        return {"weights_only": True} | ({"verbose": False} if command != "fit" else {})

    def _plugins(self, config: Namespace) -> list[Any]:
        """Return the configured plugins, and the one that writes checkpoints if none of them does."""
        plugins = config.plugins if isinstance(config.plugins, list) else [config.plugins]
        plugins = [plugin for plugin in plugins if plugin is not None]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(DurableCheckpointIO([type(self.datamodule).__qualname__]))
        return plugins

    def _callbacks(self, config: Namespace) -> list[Callback]:
        """Return the configured callbacks and those of every run."""
        callbacks = [*(config.callbacks or []), RunAnnouncement(self._run.folder), self._curves, ServiceFlush()]
        if config.enable_progress_bar is not False and not any(isinstance(each, ProgressBar) for each in callbacks):
            callbacks.append(StepProgress())
        callbacks += [Throughput(), UpdateRatio(), MemoryPeak(), ValidationSummary(), self._settings, MonitoredCurves()]
        return [*callbacks, *([ValidationScores(self._run.folder)] if self.subcommand == "fit" else [])]

    def _options(self) -> Namespace:
        return self.config[str(self.subcommand)]


def main(args: ArgsType = None) -> None:
    """Run a command.

    Args:
        args: the command line as a list; None is that of the process.
    """
    with told_when_stopped(args):
        run(args)


def run(args: ArgsType = None, kind: type[OneStepCLI] = OneStepCLI) -> None:
    """Run a command; mistakes that a user can mend end with ``error: ...`` and status 2.

    Args:
        args: the command line as a list; None is that of the process.
        kind: the command line.
    """
    quieten()
    try:
        kind(
            Estimator,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            save_config_callback=RunRecord,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={
                "prog": "onestep",
                "parser_mode": "omegaconf",
                **{
                    command: {
                        "parser_mode": "omegaconf",
                        "usage": f"onestep {command} --config CONFIG [options]",
                        "description": text,
                        "epilog": EPILOG.format(command=command),
                    }
                    for command, text in DESCRIPTIONS.items()
                },
            },
            parser_class=TrainerParser,
            auto_configure_optimizers=False,
            args=args,
        )
    except Exception as error:
        mistake = input_error_behind(error)
        if mistake is None:
            raise
        leave(f"{mistake} {REMEDIES[command_of(args)]}" if is_lack_of_memory(error) else mistake)
