"""The parser of the commands that have a trainer, and its help."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException

from geometry.command_line.parser import Parser
from geometry.jsonargparse_internals import groups_of

# In place of Lightning's help, where this project means something else or something less.
HELP = {
    "config": "Configuration file, or the name of a shipped one, such as demo or hardware/24gb. Several are laid over "
    "one another.",
    "seed_everything": "Seed of everything random. True draws one, false sets none.",
    "trainer.logger": "Logger or list of loggers. By default TensorBoard in the run's folder for fit, none otherwise.",
    "trainer.default_root_dir": "Folder of all runs.",
    "trainer.max_steps": "Number of optimiser steps.",
    "trainer.accelerator": "cpu, gpu, or auto.",
    "trainer.devices": "Number of devices, their indices, or auto.",
    "trainer.precision": "Arithmetic of the network: bf16-mixed, 16-mixed or 32-true. --precision bfloat16, float16 "
    "and float32 mean the same.",
    "trainer.accumulate_grad_batches": "Batches in one optimiser step.",
    "print_config": "Print all options with their values, and exit.",
    "trainer.gradient_clip_val": "Not for this project: set gradient_clip_norm of the model.",
    "trainer.val_check_interval": "Number of batches (not optimiser steps) between two validations, or a time such as "
    '"00:01:00:00". By default 1000, or 1.0, the end of the epoch, with check_val_every_n_epoch. fit also validates '
    "the final weights.",
    "ckpt_path": "Checkpoint to start from: a path, or last or best of the newest run of this name. With last, fit "
    "goes on in that run's folder, or starts afresh if there is none; with another, it starts a new run.",
}
TITLES = {
    "trainer": "Trainer",
    "model": "Model",
    "data": "Data",
    "checkpoints": "Checkpoints that fit writes",
    "evaluation": "Scores, files and visualisations of a test",
    "panels": "Visualisations of validation images in TensorBoard or W&B",
    "ema": "Average of the trained weights (EMA)",
    "ckpt_path": "Start",
}


# What a newcomer sets, of the options that --help_all lists.
SHORT = (
    *("help", "help_all", "config", "print_config", "run", "name", "ckpt_path"),
    *("seed_everything", "trainer.accelerator", "trainer.devices", "trainer.precision", "trainer.max_steps"),
    *("trainer.val_check_interval", "trainer.accumulate_grad_batches", "trainer.default_root_dir"),
    *("model", "data", "ema.decay", "checkpoints.every_n_steps"),
)


class HelpAll(argparse.Action):
    """The option ``--help_all``, which lists all options; ``--help`` lists those that a newcomer sets."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, **kwargs)

    def __call__(self, parser: Any, *_: object) -> NoReturn:  # noqa: ANN401
        """Print the help and leave.

        Args:
            parser: the parser of the command.
        """
        parser.help_is_short = False
        parser.print_help()
        sys.exit(0)


class TrainerParser(Parser, LightningArgumentParser):
    """The parser of the commands that have a trainer."""

    HELP = HELP
    TITLES = TITLES
    config_errors = (OmegaConfBaseException,)
    help_is_short = False

    def format_help(self, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401
        """Return the help, of the most important options if it is to be short.

        Args:
            *args: what the parser of jsonargparse takes.
            **kwargs: what the parser of jsonargparse takes.
        """
        text = super().format_help(*args, **kwargs)
        if not self.help_is_short:
            return text
        shown = [option for _, options in groups_of(self) for option in options if option.help != argparse.SUPPRESS]
        hidden = [option for option in shown if option.dest not in SHORT and not isinstance(option, HelpAll)]
        kept = [option.help for option in hidden]
        for option in hidden:
            option.help = argparse.SUPPRESS
        text = super().format_help(*args, **kwargs)
        for option, before in zip(hidden, kept, strict=True):
            option.help = before
        return text
