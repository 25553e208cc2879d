"""Completion of command lines by shells: the script that ``onestep --print_completion shtab-bash`` prints."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch.cli import ArgsType, LightningArgumentParser

from geometry.command_line import Command, Group
from geometry.command_line.messages import leave
from lightning_modules.command_line.trainer_commands import OneStepCLI, run


def print_completion(kind: str, others: Mapping[str, Command | Group]) -> None:
    """Print the script that completes the commands and their options in a shell.

    Args:
        kind: shtab-bash, shtab-zsh or shtab-tcsh.
        others: the commands without a trainer.
    """

    class Completion(OneStepCLI):
        """The parser of all commands, which prints a script in place of parsing."""

        def add_other_commands(self, add: Callable[..., Any]) -> None:
            for name, command in others.items():
                parser = command.parser(f"onestep {name}")
                add(name, parser, help=command.summary)
                if isinstance(command, Group):
                    command.fill(parser, f"onestep {name}")

        def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
            try:
                print(parser.get_completion_script(kind))
            except ValueError as error:
                leave(f"--print_completion {kind}: {error} Give shtab-bash, shtab-zsh or shtab-tcsh.")
            sys.exit(0)

    run(["fit"], Completion)
