"""The base of an export, as it may be named to others, and its licence."""

import re
from pathlib import Path

from geometry.errors import InputError
from lightning_modules.inference.loading import read_part_of
from lightning_modules.shipped import find_folder

# Of a card; heads of real ones have some hundred letters.
_LONGEST_HEAD = 65_536


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
    except InputError:
        return None
    # A line is looked for, and nothing else of the card parsed: a stranger's YAML may take any time and memory.
    head = text[:_LONGEST_HEAD].split("\n---", 1)[0] if text.startswith("---") else ""
    found = re.search(r"^license: *([\"']?)([\w.+-]{1,60})\1 *$", head, re.MULTILINE)
    return found[2] if found and found[2] != "other" else None


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
