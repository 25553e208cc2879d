"""Whether a folder of the hub's layout is a base of a known family and complete, before weights are loaded."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geometry.errors import InputError
from geometry.files.paths import given_path
from lightning_modules.networks.base_files import INDEX, Base, Part, absence, check_weights, missing_configs
from lightning_modules.networks.conditioning import FILE_NAME
from lightning_modules.networks.config_checks import check_class, named_class, read_configs
from lightning_modules.networks.family import Family, family_named
from lightning_modules.networks.hub import download_missing, find_base, read_index


@dataclass(frozen=True)
class CheckedBase:
    """A base whose files are on this machine and which can be used.

    Attributes:
        files: where they are.
        family: what it is.
        configs: those of its parts that are needed, by the parts' names.
        stored: the file that stands for the encoders, if there is one.
    """

    files: Base
    family: Family
    configs: Mapping[str, dict[str, Any]]
    stored: Path | None


def check_base(name: str, conditioning: str | None = None, use_stored: bool = True) -> CheckedBase:
    """Return a base whose files are on this machine and which can be used, and its family.

    Convention:
        Configs and the headers of the weights are read, no weights. Of a base on the hub, weights are fetched after
        its configs have been found right.

    Args:
        name: folder, or hub id ``owner/name``.
        conditioning: file that stands for the encoders; None is the one in the base's folder, if it is there.
        use_stored: let such a file stand for the encoders; False asks for the encoders themselves.

    Raises:
        InputError: there is no such base or file, it is of no known family, lacks a part, or a file is damaged.
    """
    found = read_index(name)
    index = found.read_json(INDEX)
    family = family_named(index.get("_class_name"), str(found))
    stored = _stored(found, conditioning) if use_stored else None
    parts = family.parts(with_text=stored is None)
    _check_index(found, index, family, parts)
    parts = {name: part for name, part in parts.items() if named_class(index, name) is not None}
    base = find_base(name, parts)
    if missing := [absence(base, file) for file in missing_configs(base)]:
        raise InputError(f"{base} has {' and '.join(missing)}; a {family.pipeline} consists of {', '.join(parts)}.")
    configs = read_configs(base)
    for part, config in configs.items():
        check_class(base, f"{part}/{parts[part].config}", "", config.get("_class_name"), family.classes[part])
    configs[family.denoiser_part] = _with_defaults(family, configs[family.denoiser_part])
    family.check(base, configs)
    download_missing(base)
    check_weights(base)
    return CheckedBase(base, family, configs, stored)


def _with_defaults(family: Family, config: dict[str, Any]) -> dict[str, Any]:
    """Return a denoiser's config with what its class takes where the config says nothing."""
    import diffusers

    kind = getattr(diffusers, family.classes[family.denoiser_part][0])
    return {name: each.default for name, each in inspect.signature(kind).parameters.items()} | config


def _stored(base: Base, conditioning: str | None) -> Path | None:
    if conditioning is None:
        beside = base.folder / FILE_NAME
        return beside if beside.is_file() else None
    file = given_path(conditioning, "conditioning")
    if not file.is_file():
        raise InputError(f"there is no file of conditioning {conditioning}; write one: onestep conditioning.")
    return file


def _check_index(base: Base, index: dict[str, Any], family: Family, parts: Mapping[str, Part]) -> None:
    """Check that a base names the parts that its family has, each of a class that is known."""
    for part in parts:
        given = named_class(index, part)
        if given is None and part not in family.optional:
            raise base.refusal(INDEX, f"names no {part}, which a {family.pipeline} has.")
        check_class(base, INDEX, f"{part}: ", given, family.classes[part])
    for part in index:
        is_known = part.startswith("_") or part in family.classes or part in family.idle
        if not is_known and (given := named_class(index, part)) is not None:
            raise base.refusal(INDEX, f"has a part {part} ({given}), which is not read here.")
