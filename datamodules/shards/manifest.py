"""``dataset.json``: what a prepared data set holds, and how it was made."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datamodules.shards.transfer import CHUNK_BYTES as CHUNK_BYTES
from datamodules.shards.transfer import DEFAULT_TRANSFER, Transfer, is_remote, open_url
from geometry.errors import InputError

FORMAT_VERSION = 1
FRAME = "x right, y up, z toward the viewer"
FILE_NAME = "dataset.json"
NAME_PATTERN = r"[A-Za-z0-9_-]+"
REQUIRED_ENTRIES = ("image", "depth")


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
    root = str(path).rstrip("/") if is_remote(str(path)) else os.path.abspath(path)
    source = locate(root, FILE_NAME)
    remedy = "Give the folder that `python -m datamodules.prepare` wrote (its --out)."
    if not is_remote(root) and not os.path.isdir(root):
        raise InputError(f"{root} is not a folder. {remedy}")
    try:
        with open_url(source, transfer) as stream:
            data = stream.read()
        document = json.loads(data)
    except FileNotFoundError as error:
        raise InputError(f"{root} holds no {FILE_NAME}, so it is not a prepared data set. {remedy}") from error
    except OSError as error:
        raise InputError(f"{source} cannot be read ({error}). {remedy}") from error
    except ValueError as error:
        raise InputError(f"{source} is no valid JSON ({error}). {remedy}") from error
    place = None if cache_dir is None else os.path.abspath(os.path.expanduser(cache_dir))
    return Dataset(root, parse_manifest(document, source), transfer, place)


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
    require(version == FORMAT_VERSION, f"format_version is {version!r}, this program reads {FORMAT_VERSION}")
    name = document.get("name")
    require(isinstance(name, str) and re.fullmatch(NAME_PATTERN, name) is not None, f"name is {name!r}")
    require(document.get("units") == "m", f"units are {document.get('units')!r}, only 'm' is known")
    require(document.get("frame") == FRAME, f"frame is {document.get('frame')!r}, only {FRAME!r} is known")
    size = document.get("image_size")
    require(_are_sizes(size), f"image_size is {size!r}, not [height, width] in pixels")
    near, far = document.get("near_plane_m"), document.get("far_plane_m")
    require(_is_number(near) and _is_number(far) and 0 <= near < far, f"near and far plane are {near!r} and {far!r}")
    entries = document.get("entries")
    require(
        isinstance(entries, list) and set(REQUIRED_ENTRIES) <= set(entries) <= {*REQUIRED_ENTRIES, "normals"},
        f"entries are {entries!r}; image and depth are needed, normals are optional",
    )
    splits = document.get("splits")
    require(isinstance(splits, dict) and all(isinstance(shards, list) for shards in splits.values()), "no splits")
    for shard in (shard for shards in splits.values() for shard in shards):
        require(_is_shard(shard), f"{shard!r} is no shard of this folder (file, samples, sha256)")
    options = document.get("options", {})
    require(isinstance(options, dict), f"options are {options!r}")
    statistics, plan_sha256 = document.get("statistics", {}), document.get("plan_sha256", "")
    require(isinstance(statistics, dict), f"statistics are {statistics!r}")
    require(isinstance(plan_sha256, str), f"plan_sha256 is {plan_sha256!r}")
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


def _is_number(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _are_sizes(value: Any) -> bool:  # noqa: ANN401
    return isinstance(value, Sequence) and len(value) == 2 and all(type(side) is int and side > 0 for side in value)


def _is_shard(value: Any) -> bool:  # noqa: ANN401
    """Accept plain relative names only: a data set from elsewhere must not name other files, URLs or commands."""
    if not isinstance(value, dict) or set(value) != {"file", "samples", "sha256"}:
        return False
    file, samples, sha256 = value["file"], value["samples"], value["sha256"]
    if not isinstance(file, str) or not isinstance(sha256, str) or type(samples) is not int or samples < 1:
        return False
    inside = re.fullmatch(r"[\w.-]+(/[\w.-]+)*", file) is not None and ".." not in file.split("/")
    return inside and re.fullmatch(r"[0-9a-f]{64}", sha256) is not None
