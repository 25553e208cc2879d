"""Configurations and the toy base that come with the project: found by name, in a clone and in an installed wheel."""

import re
from pathlib import Path

from geometry.errors import InputError
from geometry.files.paths import given_path

_PACKAGES = Path(__file__).parents[1]
# A wheel has them in its package onestep, a clone beside the packages: pyproject.toml maps the one to the other.
_INSTALLED = _PACKAGES / "onestep"
SHIPPED = _INSTALLED if _INSTALLED.is_dir() else _PACKAGES
_CONFIGS = "configs"
_BASES = "checkpoints"
# What a configuration that is written out on the command line, {name: demo}, is not.
_PATH = re.compile(r"[\w~./\\][\w~./\\-]*")


def find_config(name: str) -> str:
    """Return the path of a configuration: the file of that path, or else the one of that name that is shipped.

    Convention:
        ``demo``, ``demo.yaml`` and ``configs/demo.yaml`` name the same one; a file of that very path comes first.
        What holds other characters than a path's is returned as it is, for instance settings in place of a file.

    Args:
        name: path, or name below ``configs/``, for instance ``hardware/24gb``.

    Raises:
        InputError: there is no such file, and none of that name is shipped.
    """
    if not _PATH.fullmatch(name):
        return name
    path = given_path(name, "the configuration")
    if path.exists():
        return name
    wanted = path.as_posix().removeprefix(f"{_CONFIGS}/").removesuffix(".yaml")
    if wanted in config_names():
        return str(SHIPPED / _CONFIGS / f"{wanted}.yaml")
    raise InputError(
        f"there is no configuration {name}: no such file, and none of that name comes with the project. Give a path, "
        f"or one of {', '.join(config_names())}."
    )


def config_names() -> list[str]:
    """Return the names of the configurations that are shipped, those of hardware last."""
    folder = SHIPPED / _CONFIGS
    files = [file.relative_to(folder).with_suffix("") for file in folder.rglob("*.yaml")]
    return [name.as_posix() for name in sorted(files, key=lambda name: (len(name.parts), name))]


def find_folder(base: str) -> Path | None:
    """Return the folder of a base model, or None if it is none on this machine, for instance a hub id.

    Convention:
        ``checkpoints/...`` below the working folder comes before the one that is shipped.

    Args:
        base: folder or hub id, as a configuration names it.

    Raises:
        InputError: it can be no path.
    """
    path = given_path(base, "the base")
    if path.is_dir():
        return path
    shipped = SHIPPED / path
    return shipped if path.parts[:1] == (_BASES,) and ".." not in path.parts and shipped.is_dir() else None
