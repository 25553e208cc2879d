"""The base of an export, as it may be named to others, and its licence."""

from pathlib import Path

import yaml

from geometry.errors import InputError
from lightning_modules.inference.loading import read_part_of
from lightning_modules.shipped import find_folder


def public_name(base: str) -> str | None:
    """Return a hub id as it is, of a folder its name alone, and None for a network without a base.

    Args:
        base: folder or hub id of a base; empty without one.
    """
    if not base:
        return None
    return Path(base).name if find_folder(base) else base


def licence_of(base: str) -> str | None:
    """Return the licence that the base's own card states, if it has a card within reach.

    Args:
        base: folder or hub id of a base; empty without one.
    """
    try:
        text = read_part_of(base, "README.md") if base else ""
        head = yaml.safe_load(text.split("---")[1]) if text.startswith("---") else {}
    except (InputError, yaml.YAMLError, IndexError):
        return None
    licence = head.get("license") if isinstance(head, dict) else None
    return None if licence == "other" else licence


def licence_line(base: str | None, licence: str | None) -> str:
    """Return a sentence about the licence of a base.

    Args:
        base: its public name; None for a network without a base.
        licence: as its card states it; None if it does not.
    """
    if base is None:
        return "The network has no base."
    if licence is None:
        return f"The licence of the base, {base}, applies; it was not found."
    return f"The base's licence is `{licence}`."
