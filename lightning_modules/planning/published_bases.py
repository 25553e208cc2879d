"""The published architectures of the models that shipped configurations name: configs alone, no weights.

Each file in ``published`` holds the names that a model has on the hub and the configs of its parts.
"""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent / "published"


def published() -> dict[str, Path]:
    """Return the files of the architectures that are known, by the hub ids of the models."""
    found = {}
    for file in sorted(_FOLDER.glob("*.json")):
        for name in json.loads(file.read_text(encoding="utf-8"))["names"]:
            found[name] = file
    return found


def unpack(file: Path, folder: Path) -> Path:
    """Write a published architecture as the folder that the hub has, without its weights.

    Args:
        file: one of ``published``.
        folder: where to; it is made.

    Returns:
        The folder.
    """
    for name, content in json.loads(file.read_text(encoding="utf-8"))["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def with_published(section: Any, folder: Path, names: set[str] | None = None) -> Any:  # noqa: ANN401 - any of YAML's
    """Return a section of a configuration in which names of published models are folders of their configs.

    Args:
        section: mappings, lists and values.
        folder: where the folders are made.
        names: is given the names that were replaced.
    """
    if isinstance(section, dict):
        return {key: with_published(value, folder, names) for key, value in section.items()}
    if isinstance(section, list):
        return [with_published(value, folder, names) for value in section]
    file = published().get(section) if isinstance(section, str) and "/" in section else None
    if file is None:
        return section
    if names is not None:
        names.add(section)
    return str(unpack(file, folder / file.stem))
