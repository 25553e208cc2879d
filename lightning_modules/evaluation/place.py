"""Where a test writes: results of another checkpoint, other settings or other samples are never written over."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path

from lightning_modules.evaluation.scores import read_scores


def free_folder(folder: Path, identities: Mapping[str, str]) -> Path:
    """Return a folder, or the first of ``folder_2``, ``folder_3``, ... that holds no results of something else.

    Args:
        folder: the folder that is wanted.
        identities: by name of a dataset, what its results depend on (``DatasetScores.identity``).
    """
    numbered = (folder if number == 1 else folder.with_name(f"{folder.name}_{number}") for number in count(1))
    return next(candidate for candidate in numbered if _is_free(candidate, identities))


def _is_free(folder: Path, identities: Mapping[str, str]) -> bool:
    """Say whether all results in a folder are of the same model, and those of these datasets of the same data."""
    models = {identity.partition("-")[0] for identity in identities.values()}
    found = filter(None, (read_scores(file.parent) for file in folder.glob("*/scores.json")))
    return all(
        each.identity.partition("-")[0] in models and identities.get(each.name, each.identity) == each.identity
        for each in found
    )
