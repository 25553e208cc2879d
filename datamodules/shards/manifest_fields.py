"""Fields of ``dataset.json``: whether they are what they should be."""

import re
from collections.abc import Sequence
from typing import Any

from datamodules.shards.codecs import IMAGE
from geometry.files.json_text import is_finite_number
from geometry.files.limits import MAX_FILE_NAME_LETTERS, MAX_SAMPLES_PER_SHARD
from geometry.modalities import registered


def are_entries(value: Any) -> bool:  # noqa: ANN401
    """Say whether something lists an image and modalities, each once."""
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        return False
    is_known = {IMAGE} < set(value) <= {IMAGE, *registered()}
    return is_known and len(value) == len(set(value))


def are_limits(name: str, value: Any) -> bool:  # noqa: ANN401
    """Say whether something is the smallest and the largest value of a modality."""
    if not isinstance(value, Sequence) or len(value) != 2 or not all(map(is_finite_number, value)):
        return False
    low, high = registered()[name].possible_values if name in registered() else (0.0, 0.0)
    return low <= value[0] < value[1] <= high


def are_sizes(value: Any) -> bool:  # noqa: ANN401
    """Say whether something is [height, width] in pixels."""
    return isinstance(value, Sequence) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def is_shard(value: Any) -> bool:  # noqa: ANN401
    """Accept plain relative names only: a data set from elsewhere must not name other files, URLs or commands."""
    if not isinstance(value, dict) or set(value) != {"file", "samples", "sha256"}:
        return False
    file, samples, sha256 = value["file"], value["samples"], value["sha256"]
    if not isinstance(file, str) or not isinstance(sha256, str) or type(samples) is not int:
        return False
    if not 1 <= samples <= MAX_SAMPLES_PER_SHARD or not is_inside(file):
        return False
    return re.fullmatch(r"[0-9a-f]{64}", sha256) is not None


def is_inside(file: object) -> bool:
    """Say whether something is the name of a file below the folder of a data set, and of nothing elsewhere."""
    if not isinstance(file, str) or len(file) > MAX_FILE_NAME_LETTERS:
        return False
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)*", file) is not None and ".." not in file.split("/")
