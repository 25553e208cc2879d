"""Options that name a trained model, the same for every command that uses one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml

from geometry.command_line import Option
from geometry.command_line.options import Parameter
from geometry.errors import InputError, printable
from geometry.files.paths import given_path
from geometry.files.reading import read_text_file
from lightning_modules.inference.loading import EmaChoice, LoadedModel, load_model
from lightning_modules.shipped import find_config
from lightning_modules.training.found_runs import find_run


@dataclass(frozen=True)
class ModelChoice:
    """Model.

    Attributes:
        run: runs/NAME for the newest run of a name, runs/NAME/version_N, or a checkpoint file.
        ckpt_path: Which checkpoint of the run: last, best (by the metric that the run watched), or a file. Without
            --run also a run, or best or last of the newest run of the name in --run_config. By default last.
        pretrained: In place of a run: exported diffusers folder, or hub id of a Marigold model.
        run_config: Configuration of a training, a file or the name of a shipped one such as demo: with --run, laid over
            the run's own; otherwise in its place. --config takes such a file, too.
        base: Base model in place of the configured one, if that has moved.
        ema: Take the moving average of the weights; auto takes it where there is one.
        modality: Which modality to take, of a model of several; by default, predict and export take all of them.

    Raises:
        InputError: The model is not named, or twice.
    """

    run: Annotated[str | None, Option(metavar="RUN")] = None
    ckpt_path: Annotated[str | None, Option(metavar="WHICH")] = None
    pretrained: Annotated[str | None, Option(metavar="DIR", also=("model",))] = None
    run_config: Annotated[tuple[str, ...], Option(metavar="FILE")] = ()
    base: Annotated[str | None, Option(metavar="DIR")] = None
    ema: EmaChoice = "auto"
    modality: Annotated[str | None, Option(metavar="NAME")] = None

    def __post_init__(self) -> None:
        named = [option for option in ("run", "ckpt_path", "pretrained") if getattr(self, option) is not None]
        if not named:
            raise InputError(
                "one of --run, --ckpt_path and --pretrained is needed: runs/NAME, a checkpoint, or an export."
            )
        if "pretrained" in named and len(named) > 1:
            raise InputError(f"--{named[0]} and --pretrained both name a model; give one of them.")

    def load(self) -> LoadedModel:
        """Return the model, and say which run, file and step it is.

        Raises:
            InputError: it cannot be found or loaded.
        """
        for option in ("run", "ckpt_path", "pretrained", "base"):
            value = getattr(self, option)
            if value is not None:
                given_path(value, f"--{option}")
        configs = [find_config(os.fspath(given_path(file, "--run_config"))) for file in self.run_config]
        if self.run is None:
            model = load_model(self.ckpt_path or self.pretrained or "", configs, self.base, self.ema)
        else:
            own = find_run(self.run, self.ckpt_path).config
            laid_over: list[str | Path] = [own, *configs] if configs else []
            model = load_model(self.run, laid_over, self.base, self.ema, self.ckpt_path)
        if model.taken:
            print(printable(model.taken), flush=True)
        return model


def find_run_configs(words: list[str], options: Sequence[Parameter]) -> list[str]:
    """Return a command line in which ``--config`` is ``--run_config`` where the file is that of a training.

    A file whose keys are options of the command holds values of these; any other is a run's.

    Args:
        words: the command line, with values joined to ``--config``.
        options: options of the command.
    """
    names = {option.name for option in options}
    given = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    of_runs = [file for file in given if not _sections(file) <= names]
    kept = [word for word in words if word.partition("=")[2] not in of_runs or not word.startswith("--config=")]
    if not of_runs:
        return kept
    if "--run_config" not in [word.partition("=")[0] for word in kept]:
        return [*kept, "--run_config", *of_runs]
    raise InputError("--config and --run_config both name configurations of a training; give all of them to one.")


def _sections(file: str) -> set[str]:
    """Return the keys of a configuration; those of a training if it cannot be read, which then says why."""
    try:
        content = yaml.safe_load(read_text_file(given_path(find_config(file), "--config")))
    except (InputError, OSError, ValueError, RecursionError, yaml.YAMLError):
        return {"model"}
    return set(map(str, content)) if isinstance(content, dict) else {"model"} if content else set()
