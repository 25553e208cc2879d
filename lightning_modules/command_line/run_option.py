"""The option ``--run`` of the commands that have a trainer: a run's name for its configuration and checkpoint."""

from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from geometry.errors import InputError
from lightning_modules.training.found_runs import find_run

RUN_HELP = (
    "A run: runs/NAME for the newest run of a name, runs/NAME/version_N, or a checkpoint file. Model, data and "
    "settings are those of its config.yaml; further --config and options are laid over. --ckpt_path says best or last "
    "(the default)."
)
COMMANDS_WITH_RUN = ("validate", "test")


def name_run(words: Sequence[str]) -> list[str]:
    """Return a command line in which ``--run`` is replaced by the configuration and the checkpoint of the run.

    Args:
        words: the command and its options.

    Raises:
        InputError: there is no such run, or its configuration is missing.
    """
    if not words or words[0] not in COMMANDS_WITH_RUN:
        return list(words)
    options = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    options.add_argument("--run")
    options.add_argument("--ckpt_path")
    try:
        given, rest = options.parse_known_args(words[1:])
    except ArgumentError as error:
        raise InputError(f"{error.argument_name} needs a value.") from error
    if given.run is None:
        return list(words)
    found = find_run(given.run, given.ckpt_path)
    if not found.config.is_file():
        raise InputError(
            f"--run {given.run}: there is no {found.config}. Give the configuration of the run: --config, --ckpt_path."
        )
    rank_zero_info(found.describe())
    return [words[0], "--config", str(found.config), "--ckpt_path", str(found.checkpoint), *rest]
