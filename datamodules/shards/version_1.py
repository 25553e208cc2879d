"""``dataset.json`` of version 1: depth, perhaps normals, and the facts about depth under names of their own.

What version 1 can say is written as version 1, so that programs of version 0.1 read it.
"""

from collections.abc import Mapping
from typing import Any

from geometry.errors import InputError

VERSION = 1
_ENTRIES = ({"image", "depth"}, {"image", "depth", "normals"})
# Names of the facts about depth: in version 1, and among the statistics of a modality since.
_FACTS = {
    "valid_share": "share",
    "depth_min_m": "min",
    "depth_max_m": "max",
    "depth_quantiles_m": "quantiles",
}
_NO_DEPTH = {"share": 0.0, "min": None, "max": None, "quantiles": {"0.02": None, "0.5": None, "0.98": None}}


def can_say(document: Mapping[str, Any]) -> bool:
    """Whether version 1 can say what a document of today's version says."""
    return set(document["entries"]) in _ENTRIES and set(document["ranges"]) == {"depth"}


def downgrade(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document of today's version as one of version 1, which must be able to say it."""
    near, far = document["ranges"]["depth"]
    others = {name: value for name, value in document.items() if name not in ("name", "image_size", "ranges")}
    return {
        "name": document["name"],
        "image_size": document["image_size"],
        "near_plane_m": near,
        "far_plane_m": far,
        **others,
        "statistics": {split: _with_depth_facts(counted) for split, counted in document["statistics"].items()},
        "format_version": VERSION,
    }


def upgrade(document: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a document of version 1 as one of today's version; what is wrong with it stays wrong.

    Args:
        document: parsed JSON.
        source: name of the file, for messages.

    Raises:
        InputError: its entries are not those of version 1.
    """
    entries = document.get("entries")
    names = entries if isinstance(entries, list) and all(isinstance(entry, str) for entry in entries) else []
    if set(names) not in _ENTRIES:
        raise InputError(
            f"{source}: entries are {entries!r:.100}; image and depth are needed, normals are optional. "
            "Prepare the data set again, or mend the file."
        )
    planes = [document.get("near_plane_m"), document.get("far_plane_m")]
    statistics = document.get("statistics", {})
    if isinstance(statistics, dict):
        statistics = {split: _with_modalities(counted) for split, counted in statistics.items()}
    return {**document, "ranges": {"depth": planes}, "statistics": statistics}


def _with_depth_facts(counted: Any) -> Any:  # noqa: ANN401
    """Return the statistics of a split in the order and by the names of version 1."""
    if not isinstance(counted, dict) or "modalities" not in counted:
        return counted
    facts = counted["modalities"].get("depth", _NO_DEPTH)
    first = {name: counted[name] for name in ("samples", "num_bytes")}
    return {
        **first,
        **{old: facts[new] for old, new in _FACTS.items()},
        **{name: value for name, value in counted.items() if name not in (*first, "modalities")},
    }


def _with_modalities(counted: Any) -> Any:  # noqa: ANN401
    if not isinstance(counted, dict) or not set(_FACTS) <= set(counted):
        return counted
    others = {name: value for name, value in counted.items() if name not in _FACTS}
    return {**others, "modalities": {"depth": {new: counted[old] for old, new in _FACTS.items()}}}
