"""The option ``--run`` of the commands that have a trainer: a run's name for its configuration and checkpoint."""

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
    (run, which), rest = _taken_out(words[1:], ("--run", "--ckpt_path"))
    if run is None:
        return list(words)
    found = find_run(run, which)
    if not found.config.is_file():
        raise InputError(
            f"--run {run}: there is no {found.config}. Give the configuration of the run: --config, --ckpt_path."
        )
    rank_zero_info(found.describe())
    return [words[0], "--config", str(found.config), "--ckpt_path", str(found.checkpoint), *rest]


def _taken_out(words: Sequence[str], options: Sequence[str]) -> tuple[list[str | None], list[str]]:
    """Return the values of options, None where they are not given, and the other words."""
    values: dict[str, str | None] = dict.fromkeys(options)
    rest = []
    left = iter(words)
    for word in left:
        name, is_joined, value = word.partition("=")
        if name not in values:
            rest.append(word)
            continue
        values[name] = value if is_joined else next(left, None)
        if values[name] is None:
            raise InputError(f"{name} needs a value.")
    return list(values.values()), rest
