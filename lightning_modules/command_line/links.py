"""What one section of a configuration says about another."""

from importlib import import_module
from typing import Any

from jsonargparse import Namespace


def modalities_of(task: Namespace) -> list[str]:
    """Return the names of the modalities that a configured task needs from the data.

    Args:
        task: class_path and init_args of the task.
    """
    several = task.get("init_args", {}).get("tasks")
    if several is not None:
        names = [name for member in several for name in modalities_of(member)]
        only = task.init_args.get("only")
        return [only] if only in names else names
    fixed = class_of(task.class_path).modality_class
    modality = fixed or class_of(task.init_args.modality.class_path)
    return [modality.name]


def class_of(path: str) -> Any:  # noqa: ANN401 - a class of any kind
    """Return the class that a configuration names, which the parser has found before."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
