"""``dataset.json``: what a prepared data set holds, and how it was made."""

import json
import os
import re
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from reprlib import repr as shown
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    TypeAdapter,
    ValidationError,
    with_config,
)

from datamodules.shards import version_1
from datamodules.shards.codecs import IMAGE, codings_of
from datamodules.shards.transfer import CHUNK_BYTES as CHUNK_BYTES
from datamodules.shards.transfer import DEFAULT_TRANSFER, Transfer, is_remote, open_url
from datamodules.untrusted.text import shorten
from geometry.errors import InputError
from geometry.files.json_text import parse_json
from geometry.files.limits import (
    MAX_BYTES_AFTER_SHARD,
    MAX_FILE_NAME_LETTERS,
    MAX_JSON_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_MANIFEST_SECONDS,
    MAX_SAMPLE_PIXELS,
    MAX_SAMPLES_PER_SHARD,
    MIB,
)
from geometry.files.paths import given_path
from geometry.files.writing import write_whole
from geometry.modalities import registered

FORMAT_VERSION = 2
# Where modalities are coded: a reader that does not know codings must not try.
CODED_VERSION = 3
UNITS = "m"
FRAME = "x right, y up, z toward the viewer"
FILE_NAME = "dataset.json"
MANY_SHARDS = 10_000
NAME_PATTERN = r"[A-Za-z0-9_-]+"
# Of an entry of the right size: vectors as float64. What claims more is refused before memory is reserved for it.
MAX_BYTES_PER_PIXEL = 24
# Of splits and modalities.
_MANY = 1 << 13


def is_inside(file: str) -> bool:
    """Say whether something is the name of a file below the folder of a data set, and of nothing elsewhere.

    A data set from elsewhere must not name other files, URLs or commands.
    """
    is_name = len(file) <= MAX_FILE_NAME_LETTERS and re.fullmatch(r"[\w.-]+(/[\w.-]+)*", file) is not None
    return is_name and ".." not in file.split("/")


def _check_file(file: str) -> str:
    if not is_inside(file):
        raise ValueError("it is no shard of this folder")
    return file


def _check_size(size: tuple[int, int]) -> tuple[int, int]:
    if size[0] * size[1] > MAX_SAMPLE_PIXELS:
        raise ValueError(f"these are more than {MAX_SAMPLE_PIXELS} pixels")
    return size


def _check_entries(entries: tuple[str, ...]) -> tuple[str, ...]:
    if not {IMAGE} < set(entries) <= {IMAGE, *registered()} or len(entries) > len(set(entries)):
        raise ValueError(f"{IMAGE} is needed, and some of {', '.join(registered())}, each once")
    return entries


def _require_few(found: Any) -> Any:  # noqa: ANN401
    """Refuse a long object before it is looked at: pydantic would remember what is wrong with each of its entries."""
    if isinstance(found, dict) and len(found) > _MANY:
        raise ValueError("these are too many")
    return found


_Side = Annotated[int, Field(strict=True, gt=0)]
_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Split = Annotated[str, Field(pattern=r"^[\w.-]{1,80}$")]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ShardInfo:
    """One shard of a split.

    Attributes:
        file: path of the tar file relative to the folder of ``dataset.json``.
        samples: number of samples in it.
        sha256: checksum of the file, 64 hexadecimal digits.
    """

    file: Annotated[str, AfterValidator(_check_file)]
    samples: Annotated[int, Field(strict=True, ge=1, le=MAX_SAMPLES_PER_SHARD)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


_Shard = Annotated[ShardInfo, BeforeValidator(_require_few)]


@dataclass(frozen=True)
class DatasetManifest:
    """The content of ``dataset.json``.

    Attributes:
        name: name of the data set, as it appears in logs and shard names.
        image_size: (height, width) of every sample in pixels.
        entries: what every sample holds: "image" and the names of modalities.
        splits: the shards of every split ("train", "val", ...), in order.
        ranges: by modality, the smallest and the largest value that counts as valid; a modality without one has no
            limits of its own.
        options: how the data set was prepared, for people.
        statistics: by split, the number of samples, which were left out, and by modality the share of known pixels, the
            range and quantiles; for people.
        codings: names of the codings of modalities that are stored as codes, by modality.
        plan_sha256: stands for the raw frames and the options that the data set was made from; empty if unknown.
    """

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    image_size: Annotated[tuple[_Side, _Side], AfterValidator(_check_size)]
    entries: Annotated[tuple[str, ...], FailFast(), AfterValidator(_check_entries)]
    splits: Annotated[dict[_Split, Annotated[list[_Shard], FailFast()]], BeforeValidator(_require_few)]
    ranges: Annotated[dict[str, tuple[_Number, _Number]], BeforeValidator(_require_few)] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)
    plan_sha256: str = ""
    codings: dict[str, str] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that every sample holds."""
        return tuple(entry for entry in self.entries if entry != IMAGE)

    def to_document(self) -> dict[str, Any]:
        """Return what ``dataset.json`` says, by the oldest version of its layout that can say it."""
        content = asdict(self)
        order = ("name", "image_size", "ranges", "entries", "splits", "options", "statistics", "plan_sha256")
        end = {"format_version": FORMAT_VERSION, "units": UNITS, "frame": FRAME}
        document = {name: content[name] for name in order} | end
        if self.codings:
            return document | {"format_version": CODED_VERSION, "codings": content["codings"]}
        return version_1.downgrade(document) if version_1.can_say(document) else document

    def num_samples(self, split: str) -> int:
        """Return the number of samples in a split, 0 if there is no such split."""
        return sum(shard.samples for shard in self.splits.get(split, []))

    def write(self, folder: Path) -> None:
        """Write ``dataset.json`` into a folder, under a temporary name first.

        Args:
            folder: folder of the data set; it must exist.
        """
        # Of very many shards, the indentation would be a third.
        num_shards = sum(map(len, self.splits.values()))
        text = json.dumps(self.to_document(), indent=2 if num_shards <= MANY_SHARDS else None)
        write_whole(folder / FILE_NAME, text + "\n", is_lasting=True)


_MANIFEST = TypeAdapter(DatasetManifest)


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
        num_entries = len(registered()) + 2  # the image and the description
        return shard.samples * num_entries * per_entry + MAX_BYTES_AFTER_SHARD

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
    remedy = "Give the folder that `onestep prepare` wrote (its --output)."
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
    version, known = document.get("format_version"), (version_1.VERSION, FORMAT_VERSION, CODED_VERSION)
    is_known = type(version) is int and version in known
    require(is_known, f"format_version is {shown(version)}, this program reads {known}")
    if version == version_1.VERSION:
        document = version_1.upgrade(document, source)
    for name, only in (("units", UNITS), ("frame", FRAME)):
        require(document.get(name) == only, f"{name} is {shown(document.get(name))}, only {only!r} is known")
    try:
        manifest = _MANIFEST.validate_python({"ranges": None, **document, "codings": {}})
    except ValidationError as error:
        first = error.errors()[0]
        place, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        require(False, f"{shorten(place)} is {shown(first['input'])}: {why}")
    require(manifest.ranges.keys() <= set(manifest.modalities), f"ranges are {shown(manifest.ranges)}")
    for name, (low, high) in manifest.ranges.items():
        least, most = registered()[name].possible_values
        require(least <= low < high <= most, f"smallest and largest {name} are {[low, high]}")
    if version != CODED_VERSION:
        return manifest
    codings: Any = document.get("codings")
    of_modalities = codings_of(manifest.modalities)
    is_right = isinstance(codings, dict) and bool(codings) and codings.items() <= of_modalities.items()
    require(is_right, f"codings are {shown(codings)}, this program knows {of_modalities}")
    return replace(manifest, codings=codings)
