"""The configuration of a run, read without its data and its trainer."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geometry.errors import InputError, one_line
from geometry.files.reading import read_text_file
from lightning_modules.training.val_scores import read_scores


def read_config(files: Sequence[Path]) -> dict[str, Any]:
    """Return configuration files laid over one another.

    Convention:
        A later file overrides single values; another ``class_path`` drops the arguments of the former class. Within
        the ``model`` section, interpolations such as ``${oc.env:BASE}`` are resolved; the data's may point to folders
        that are not here.

    Args:
        files: YAML files.

    Raises:
        InputError: a file is missing or no YAML, or there is no ``model`` section.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not files:
        raise InputError("give the configuration whose last run is meant: --config.")
    config: dict[str, Any] = {}
    for file in files:
        if not file.is_file():
            raise InputError(
                f"there is no configuration {file}. Give the one that the model was trained with: --config."
            )
        text = read_text_file(file)
        try:
            content = OmegaConf.load(io.StringIO(text))
            section: Any = OmegaConf.to_container(content)
            if isinstance(section, dict) and section.get("model") is not None:
                section["model"] = OmegaConf.to_container(content.model, resolve=True)
        except RecursionError as error:
            raise InputError(f"the configuration {file} is nested too deeply.") from error
        except (YAMLError, OmegaConfBaseException, OSError, AttributeError, ValueError) as error:
            raise InputError(f"the configuration {file} cannot be read: {one_line(error)}") from error
        if not isinstance(section, dict):
            raise InputError(f"the configuration {file} holds no sections.")
        config = _lay_over(config, section)
    if not isinstance(config.get("model"), dict):
        raise InputError(f"the configuration {' and '.join(map(str, files))} has no model section.")
    return config


def base_of(config: dict[str, Any]) -> str:
    """Return the base model that a configuration names, or an empty text."""
    return str(_network_arguments(config).get("base", ""))


def set_base(config: dict[str, Any], base: str) -> None:
    """Put another base model into a configuration.

    Raises:
        InputError: its network has no base.
    """
    arguments = _network_arguments(config)
    if "base" not in arguments:
        raise InputError(f"the base {base} has no use: the configuration's network has no option base.")
    arguments["base"] = base


def make_plain(config: dict[str, Any]) -> None:
    """Take out of a configuration what suits training alone: half precision of frozen parts, and compilation."""
    for name in ("vae_precision", "compile"):
        _network_arguments(config).pop(name, None)


def _network_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a configuration's network, to change them in place; a network may have none."""
    try:
        network = config["model"]["init_args"]["network"]
        arguments = network.setdefault("init_args", {})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError("the configuration has no model.init_args.network with a class_path.") from error
    if not isinstance(arguments, dict):
        raise InputError("the configuration's model.init_args.network.init_args holds no options.")
    return arguments


def _lay_over(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    if "class_path" in upper and upper["class_path"] != lower.get("class_path"):
        return upper
    merged = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        merged[key] = _lay_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def last_scores(run: Path, at_step: int | None = None) -> tuple[int, dict[str, float]]:
    """Return the optimiser steps before a run's last validation, and its scores by name; (0, {}) if there are none.

    Args:
        run: folder of the run.
        at_step: optimiser steps of the checkpoint in question; what was validated after it does not count.
    """
    found = read_scores(run)
    steps = [step for step in found if at_step is None or step <= at_step]
    return (max(steps), found[max(steps)]) if steps else (0, {})
