"""``dataset.json``: what a prepared data set holds, and how it was made."""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from datamodules.shards.transfer import CHUNK_BYTES as CHUNK_BYTES
from datamodules.shards.transfer import DEFAULT_TRANSFER, Transfer, is_remote, open_url
from datamodules.untrusted.json_text import is_finite_number, parse_json
from geometry.errors import InputError
from geometry.limits import (
    MAX_BYTES_AFTER_SHARD,
    MAX_FILE_NAME_LETTERS,
    MAX_JSON_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_SECONDS,
    MAX_SAMPLE_PIXELS,
    MAX_SAMPLES_PER_SHARD,
    MIB,
)
from geometry.paths import given_path

FORMAT_VERSION = 1
FRAME = "x right, y up, z toward the viewer"
FILE_NAME = "dataset.json"
NAME_PATTERN = r"[A-Za-z0-9_-]+"
REQUIRED_ENTRIES = ("image", "depth")
ENTRIES = (*REQUIRED_ENTRIES, "normals", "info")
# Of an entry of the right size: normals as float64. What claims more is refused before memory is reserved for it.
MAX_BYTES_PER_PIXEL = 24


@dataclass(frozen=True)
class ShardInfo:
    """One shard of a split.

    Attributes:
        file: path of the tar file relative to the folder of ``dataset.json``.
        samples: number of samples in it.
        sha256: checksum of the file, 64 hexadecimal digits.
    """

    file: str
    samples: int
    sha256: str


@dataclass(frozen=True)
class DatasetManifest:
    """The content of ``dataset.json``.

    Attributes:
        name: name of the data set, as it appears in logs and shard names.
        image_size: (height, width) of every sample in pixels.
        near_plane_m: smallest depth that counts as valid, in metres.
        far_plane_m: largest depth that counts as valid, in metres.
        entries: what every sample holds: "image", "depth" and perhaps "normals".
        splits: the shards of every split ("train", "val", ...), in order.
        options: how the data set was prepared, for people.
        statistics: by split, the number of samples, the share of valid pixels, the range and quantiles of depth, and
            which samples were left out; for people.
        plan_sha256: stands for the raw frames and the options that the data set was made from; empty if unknown.
        format_version: version of this layout.
        units: unit of all depths; always "m".
        frame: axes of cameras and normals; always the frame of this project.
    """

    name: str
    image_size: tuple[int, int]
    near_plane_m: float
    far_plane_m: float
    entries: tuple[str, ...]
    splits: dict[str, list[ShardInfo]]
    options: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)
    plan_sha256: str = ""
    format_version: int = FORMAT_VERSION
    units: str = "m"
    frame: str = FRAME

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """By modality, the smallest and the largest value that counts as valid."""
        return {"depth": (self.near_plane_m, self.far_plane_m)}

    def num_samples(self, split: str) -> int:
        """Return the number of samples in a split, 0 if there is no such split."""
        return sum(shard.samples for shard in self.splits.get(split, []))

    def write(self, folder: Path) -> None:
        """Write ``dataset.json`` into a folder, under a temporary name first.

        Args:
            folder: folder of the data set; it must exist.
        """
        temporary = folder / f"{FILE_NAME}.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, folder / FILE_NAME)


@dataclass(frozen=True)
class Dataset:
    """A prepared data set at its place.

    Attributes:
        root: absolute path of its folder, the URL of the folder, or a command with ``{}`` in the place of a
            file's name.
        manifest: its ``dataset.json``.
        transfer: how often and how long to try to read it.
        cache_dir: folder that keeps copies of remote shards; None keeps none.
    """

    root: str
    manifest: DatasetManifest
    transfer: Transfer = DEFAULT_TRANSFER
    cache_dir: str | None = None

    def max_shard_bytes(self, shard: ShardInfo) -> int:
        """Return how long a shard can be at most if its entries are what they should be."""
        height, width = self.manifest.image_size
        per_entry = MAX_BYTES_PER_PIXEL * height * width + MAX_JSON_BYTES
        return shard.samples * len(ENTRIES) * per_entry + MAX_BYTES_AFTER_SHARD

    def shard_url(self, shard: ShardInfo) -> str:
        """Return what ``open_url`` needs to open a shard."""
        return locate(self.root, shard.file)


def locate(root: str, file: str) -> str:
    """Return where a file of a data set is: ``root/file``, or the command that prints it."""
    return root.replace("{}", file) if root.startswith("pipe:") else f"{root}/{file}"


def read_dataset(
    path: str | Path, transfer: Transfer = DEFAULT_TRANSFER, cache_dir: str | Path | None = None
) -> Dataset:
    """Return the data set that was prepared into a folder.

    Args:
        path: the folder; its URL (``http://``, ``https://``, ``gs://``, ``hf://``); or a command that prints a
            file of it, with ``{}`` in the place of the file's name (``pipe:aws s3 cp s3://bucket/hypersim/{} -``).
        transfer: how often and how long to try to read remote files.
        cache_dir: folder that keeps copies of remote shards; None keeps none.

    Returns:
        The data set with its manifest.

    Raises:
        InputError: there is no readable ``dataset.json``, or its content is not what it should be.
    """
    root = str(path).rstrip("/") if is_remote(str(path)) else os.path.abspath(given_path(path, "the data set's path"))
    source = locate(root, FILE_NAME)
    remedy = "Give the folder that `python -m datamodules.prepare` wrote (its --out)."
    if not is_remote(root) and not os.path.isdir(root):
        raise InputError(f"{root} is not a folder. {remedy}")
    try:
        document = parse_json(_read_bounded(source, transfer), MAX_MANIFEST_BYTES)
    except FileNotFoundError as error:
        raise InputError(f"{root} holds no {FILE_NAME}, so it is not a prepared data set. {remedy}") from error
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error}). {remedy}") from error
    except InputError as error:
        raise InputError(f"{source} is no valid JSON of a data set: {str(error).rstrip('.')}. {remedy}") from error
    place = None
    if cache_dir is not None:
        place = os.path.abspath(given_path(cache_dir, "data.cache_dir"))
    return Dataset(root, parse_manifest(document, source), transfer, place)


def _read_bounded(source: str, transfer: Transfer) -> bytes:
    """Return a ``dataset.json`` that ends within its limits of size and time.

    Raises:
        InputError: it does not.
        OSError: it cannot be read.
    """
    data, give_up = bytearray(), time.monotonic() + MAX_MANIFEST_SECONDS
    with open_url(source, transfer) as stream:
        # As it comes: a read of so many bytes would wait for all of them.
        while chunk := stream.read1(CHUNK_BYTES):  # type: ignore[attr-defined]
            data += chunk
            if len(data) > MAX_MANIFEST_BYTES:
                raise InputError(f"it has more than {MAX_MANIFEST_BYTES // MIB} MiB")
            if time.monotonic() > give_up:
                raise InputError(f"it has no end after {MAX_MANIFEST_SECONDS:g} seconds")
    return bytes(data)


def parse_manifest(document: Any, source: str) -> DatasetManifest:  # noqa: ANN401
    """Return the manifest that a JSON document describes, after checking every field.

    Args:
        document: parsed JSON.
        source: name of the file, for messages.

    Returns:
        The manifest.

    Raises:
        InputError: a field is missing, of the wrong type or out of range, or a shard lies outside the folder.
    """

    def require(condition: bool, complaint: str) -> None:
        if not condition:
            raise InputError(f"{source}: {complaint}. Prepare the data set again, or mend the file.")

    require(isinstance(document, dict), "the file holds no JSON object")
    version = document.get("format_version")
    require(version == FORMAT_VERSION, f"format_version is {shown(version)}, this program reads {FORMAT_VERSION}")
    name = document.get("name")
    require(isinstance(name, str) and re.fullmatch(NAME_PATTERN, name) is not None, f"name is {shown(name)}")
    require(document.get("units") == "m", f"units are {shown(document.get('units'))}, only 'm' is known")
    require(document.get("frame") == FRAME, f"frame is {shown(document.get('frame'))}, only {FRAME!r} is known")
    size = document.get("image_size")
    require(_are_sizes(size), f"image_size is {shown(size)}, not [height, width] in pixels")
    require(
        size[0] * size[1] <= MAX_SAMPLE_PIXELS, f"image_size is {shown(size)}, more than {MAX_SAMPLE_PIXELS} pixels"
    )
    near, far = document.get("near_plane_m"), document.get("far_plane_m")
    require(
        is_finite_number(near) and is_finite_number(far) and 0 <= near < far,
        f"near and far plane are {shown(near)}, {shown(far)}",
    )
    entries = document.get("entries")
    require(
        _are_entries(entries),
        f"entries are {shown(entries)}; image and depth are needed, normals are optional",
    )
    splits = document.get("splits")
    require(isinstance(splits, dict) and all(isinstance(shards, list) for shards in splits.values()), "no splits")
    for split in splits:
        require(re.fullmatch(r"[\w.-]{1,80}", split) is not None, f"{shown(split)} is no name of a split")
    wrong = [shard for shards in splits.values() for shard in shards if not _is_shard(shard)][:1]
    require(not wrong, f"{shown(wrong)} is no shard of this folder (file, samples, sha256)")
    options = document.get("options", {})
    require(isinstance(options, dict), f"options are {shown(options)}")
    statistics, plan_sha256 = document.get("statistics", {}), document.get("plan_sha256", "")
    require(isinstance(statistics, dict), f"statistics are {shown(statistics)}")
    require(isinstance(plan_sha256, str), f"plan_sha256 is {shown(plan_sha256)}")
    return DatasetManifest(
        name=name,
        image_size=(size[0], size[1]),
        near_plane_m=float(near),
        far_plane_m=float(far),
        entries=tuple(entries),
        splits={split: [ShardInfo(**shard) for shard in shards] for split, shards in splits.items()},
        options=options,
        statistics=statistics,
        plan_sha256=plan_sha256,
    )


def _are_entries(value: Any) -> bool:  # noqa: ANN401
    known = {*REQUIRED_ENTRIES, "normals"}
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        return False
    return set(REQUIRED_ENTRIES) <= set(value) <= known and len(value) == len(set(value))


def _are_sizes(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, Sequence) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def _is_shard(value: Any) -> bool:  # noqa: ANN401
    """Accept plain relative names only: a data set from elsewhere must not name other files, URLs or commands."""
    if not isinstance(value, dict) or set(value) != {"file", "samples", "sha256"}:
        return False
    file, samples, sha256 = value["file"], value["samples"], value["sha256"]
    if not isinstance(file, str) or not isinstance(sha256, str) or type(samples) is not int:
        return False
    if not 1 <= samples <= MAX_SAMPLES_PER_SHARD or len(file) > MAX_FILE_NAME_LETTERS:
        return False
    inside = re.fullmatch(r"[\w.-]+(/[\w.-]+)*", file) is not None and ".." not in file.split("/")
    return inside and re.fullmatch(r"[0-9a-f]{64}", sha256) is not None
