"""Which folder a command's run has, and which checkpoint ``--ckpt_path last`` or ``best`` means."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from geometry.errors import InputError
from geometry.files.paths import given_path
from geometry.files.reading import read_text_file
from lightning_modules.training.checkpoint_files import LAST, damage
from lightning_modules.training.found_runs import best_checkpoint
from lightning_modules.training.run_folders import OnDamage, has_checkpoint, last_checkpoint, newest_run, next_run


@dataclass(frozen=True)
class RunChoice:
    """The run of a command.

    Attributes:
        folder: ``<default_root_dir>/<name>/version_N``, whatever the logger; it need not exist yet.
        goes_on: the folder is that of a run that is continued.
        checkpoint: the checkpoint to start from; None without one.
    """

    folder: Path
    goes_on: bool = False
    checkpoint: str | None = None


def choose_run(options: Mapping[str, Any], is_fit: bool) -> RunChoice:
    """Return the run of a command.

    Args:
        options: the configuration of the command.
        is_fit: the command trains.

    Raises:
        InputError: the checkpoint to start from is not there, or cannot be used.
    """
    checkpoint = options.get("ckpt_path")
    if checkpoint == "last":
        return last_run(options, is_fit)
    runs = runs_of(options)
    if checkpoint == "best":
        run = newest_run(runs)
        if run is None:
            raise InputError(f"--ckpt_path best: there is no checkpoint in {runs}.")
        return RunChoice(next_run(runs), checkpoint=str(best_checkpoint(run)))
    _check_usable(checkpoint)
    return RunChoice(next_run(runs), checkpoint=checkpoint)


def last_run(options: Mapping[str, Any], is_fit: bool) -> RunChoice:
    """Return the newest run of a name that has a checkpoint; for a fit without one, the next run.

    Args:
        options: the configuration of a command.
        is_fit: the run is to be continued.

    Raises:
        InputError: there is no such run, its checkpoints are damaged, or it is not clear where they are.
    """
    runs = runs_of(options)
    own_folder = options["checkpoints"].get("folder") or ""
    on_damage: OnDamage = options["checkpoints"]["on_damage"]
    if "://" in own_folder:
        raise InputError(f"--ckpt_path last does not look into {own_folder}: give the checkpoint itself.")
    run = newest_run(runs)
    if run is not None:
        kept = (run / "checkpoints").resolve()
        # A run that goes on writes where the next start looks.
        if is_fit and own_folder and given_path(own_folder, "checkpoints.folder").resolve() != kept:
            raise InputError(
                f"the run {run} keeps its checkpoints in {kept}: leave checkpoints.folder as it was, or start a new "
                "run from its checkpoint."
            )
        return RunChoice(run, is_fit, str(last_checkpoint(run, on_damage, set_aside=is_fit)))
    earlier = run_of_earlier_version(options)
    if earlier is not None:
        rank_zero_info(f"the last run of this name is one of an earlier version of this project, in {earlier}.")
        return RunChoice(next_run(runs), checkpoint=str(last_checkpoint(earlier, on_damage)))
    if own_folder and (file := given_path(own_folder, "checkpoints.folder") / LAST).is_file():
        raise InputError(f"--ckpt_path last: no run in {runs} has written {file}. If it is meant, give its path.")
    if not is_fit:
        raise InputError(f"--ckpt_path last: there is no checkpoint in {runs}.")
    rank_zero_info(f"no checkpoint in {runs} yet: starting afresh.")
    return RunChoice(next_run(runs))


def runs_of(options: Mapping[str, Any]) -> Path:
    """Return the folder of all runs of a configuration's name."""
    trainer = options.get("trainer") or {}
    return Path(trainer.get("default_root_dir") or "runs") / str(options.get("name", "onestep"))


def run_of_earlier_version(options: Mapping[str, Any]) -> Path | None:
    """Return the newest run of this name that an earlier version of this project kept where its logger wrote.

    Up to version 0.1, checkpoints lay beside the files of a logger of one's own.

    Args:
        options: the configuration of a command.
    """
    found = [run for run, config in _beside_logger(options) if has_checkpoint(run) and _is_named(config, options)]
    return max(found, key=lambda run: run.stat().st_mtime, default=None)


def _beside_logger(options: Mapping[str, Any]) -> Iterator[tuple[Path, Path]]:
    """Yield folders that may be those of earlier runs, each with the configuration that was saved for it."""
    trainer = options.get("trainer") or {}
    logger = trainer.get("logger")
    if logger is False:
        root = Path(trainer.get("default_root_dir") or "runs")
        yield root, root / "config.yaml"
    first = logger[0] if isinstance(logger, list) and logger else logger
    if not isinstance(first, Mapping):
        return
    settings = first.get("init_args") or {}
    place = Path(str(settings.get("save_dir") or "."))
    is_wandb = str(first.get("class_path")).endswith("WandbLogger")
    name = settings.get("project" if is_wandb else "name", "lightning_logs") or "lightning_logs"
    for run in (place / str(name)).glob("*"):
        yield run, (place if is_wandb else run) / "config.yaml"


def _is_named(config: Path, options: Mapping[str, Any]) -> bool:
    import yaml

    with suppress(InputError, ValueError, RecursionError, yaml.YAMLError):
        content = yaml.safe_load(read_text_file(config))
        return isinstance(content, dict) and content.get("name") == options.get("name")
    return False


def _check_usable(checkpoint: str | None) -> None:
    """Say early and in one line that a checkpoint is not there, or is damaged."""
    if checkpoint is None or "://" in checkpoint:
        return
    if (Path(checkpoint) / "model_index.json").is_file():
        raise InputError(
            f"--ckpt_path {checkpoint} is a base or an export, not a checkpoint: give it as the base of the network, "
            f"--model.init_args.network.init_args.base {checkpoint}."
        )
    if not Path(checkpoint).is_file():
        raise InputError(f"--ckpt_path {checkpoint}: there is no such file.")
    from lightning_modules.training.checkpoint_content import peek_checkpoint  # slow to import

    if problem := damage(Path(checkpoint)):
        raise InputError(f"--ckpt_path {checkpoint}: the file is damaged: {problem}. Use another checkpoint.")
    peek_checkpoint(checkpoint)
