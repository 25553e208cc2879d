"""Shards: tar files in the layout of webdataset that hold the entries of many samples, one sample after another.

Convention:
    The entries of a sample follow each other and are named ``<key>.<entry>``, for instance
    ``ai_001_001-cam_00-0000.json``.
    A key holds no dot and no slash. Equal samples make equal bytes: no times, owners or modes are recorded.
"""

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from datamodules.shards.codecs import DECODERS, ENTRY_ROLES
from datamodules.shards.manifest import ShardInfo
from datamodules.shards.transfer import DEFAULT_TRANSFER, Transfer, is_remote, open_url
from geometry.errors import InputError

# No entry of a sensible sample is larger; one that claims to be is refused before it is read.
MAX_ENTRY_BYTES = 1 << 28


@dataclass(frozen=True)
class EncodedSample:
    """A sample whose entries are still encoded.

    Attributes:
        key: id of the sample within its data set.
        shard: path or URL of the shard it was read from; empty before it is written.
        entries: bytes of every entry by name ("image.jpg", "depth.blosc", "normals.blosc", "json").
    """

    key: str
    shard: str
    entries: dict[str, bytes]


def write_shard(folder: Path, file: str, samples: Iterable[EncodedSample]) -> ShardInfo:
    """Write a shard, under a temporary name until it is complete.

    Args:
        folder: folder of the data set.
        file: path of the shard in that folder; missing folders are made.
        samples: what to write, in order.

    Returns:
        The shard's line in ``dataset.json``. If there is no sample, no file is written, and it says 0 samples.

    Raises:
        InputError: a key holds a dot or a slash, or comes twice.
        OSError: the file cannot be written; what was written of it is removed.
    """
    target = folder / file
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        with open(temporary, "wb") as stream:
            samples_written = _write_tar(stream, samples)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if samples_written == 0:
        temporary.unlink()
        return ShardInfo(file, 0, "")
    checksum = file_sha256(temporary)
    os.replace(temporary, target)
    return ShardInfo(file, samples_written, checksum)


def _write_tar(stream: BinaryIO, samples: Iterable[EncodedSample]) -> int:
    keys: set[str] = set()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            _check_key(sample.key, keys)
            keys.add(sample.key)
            for name, data in sample.entries.items():
                member = tarfile.TarInfo(f"{sample.key}.{name}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            tar.members.clear()  # type: ignore[attr-defined]
    return len(keys)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 checksum of a file as 64 hexadecimal digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def iterate_shard(
    url: str,
    roles: Collection[str],
    skip: int = 0,
    transfer: Transfer = DEFAULT_TRANSFER,
    sha256: str | None = None,
) -> Iterator[EncodedSample]:
    """Yield the samples of a shard in order, without decoding anything.

    Args:
        url: path, URL or ``pipe:`` command of the shard.
        roles: entries to keep: "image", "depth", "normals", "info". Others are passed over.
        skip: number of samples at the start to leave out; their entries are not read into memory.
        transfer: how often and how long to try where the shard is remote.
        sha256: checksum that a remote shard must have at its end; None checks nothing.

    Yields:
        Every further sample, with those entries.

    Raises:
        InputError: the shard cannot be read to its end, or is not the one of that checksum; or an entry has a name
            that is no sample's, an unknown kind (such as a pickle) or comes twice; or a sample lacks an entry. The
            message names shard and sample.
    """
    sample, index = EncodedSample("", url, {}), -1
    try:
        # A local file can seek over what is not wanted; "r|" reads a stream from start to end.
        with (
            open_url(url, transfer, sha256) as stream,
            tarfile.open(fileobj=stream, mode="r|" if is_remote(url) else "r:") as tar,
        ):
            while member := tar.next():
                key, role, name = _parse_member(member, url)
                if key != sample.key:
                    if index >= skip:
                        yield _complete(sample, roles)
                    sample, index = EncodedSample(key, url, {}), index + 1
                if name in sample.entries:
                    raise InputError(f"{url}: sample {key!r} has the entry {name!r} twice. Prepare the data set again.")
                wanted = role in roles and index >= skip
                sample.entries[name] = _read_member(tar, member) if wanted else b""
                tar.members.clear()  # type: ignore[attr-defined]
    except (OSError, EOFError, tarfile.TarError) as error:
        where = f" after sample {sample.key!r}" if sample.key else ""
        raise InputError(f"shard {url} cannot be read{where}: {error}. Prepare or copy it again.") from error
    if index >= skip:
        yield _complete(sample, roles)


def decode_sample(sample: EncodedSample, roles: Collection[str]) -> dict[str, Any]:
    """Return the decoded entries of a sample.

    Args:
        sample: the sample, with at least these entries.
        roles: which entries to decode: "image", "depth", "normals", "info".

    Returns:
        By role: image (H,W,3) uint8 RGB, depth (H,W) float metres, normals (3,H,W) float, info as a dictionary.

    Raises:
        InputError: an entry cannot be decoded; the message names shard and sample.
    """
    decoded = {}
    for name, data in sample.entries.items():
        role, format_name = ENTRY_ROLES[name]
        if role in roles:
            try:
                decoded[role] = DECODERS[format_name](data)
            except InputError as error:
                raise InputError(f"{sample.shard}: sample {sample.key!r}, entry {name!r}: {error}.") from error
    return decoded


def _check_key(key: str, keys: set[str]) -> None:
    if not re.fullmatch(r"[^./\\\s]+", key) or len(key) > 80:
        raise InputError(
            f"{key!r} cannot be a sample's key: dots, slashes, spaces and more than 80 letters are refused."
        )
    if key in keys:
        raise InputError(f"two samples have the key {key!r}; every sample of a data set needs its own.")


def _parse_member(member: tarfile.TarInfo, url: str) -> tuple[str, str, str]:
    """Return key, role and entry name of a member of a shard."""
    key, dot, name = member.name.partition(".")
    if not member.isreg() or not dot or not key or "/" in key or "\\" in key:
        raise InputError(f"{url}: {member.name!r} is no sample's entry; names are <key>.<entry>, without folders.")
    if name not in ENTRY_ROLES:
        known = ", ".join(ENTRY_ROLES)
        raise InputError(
            f"{url}: sample {key!r} has an entry of unknown kind {name!r} (known: {known}). It is not read."
        )
    if member.size > MAX_ENTRY_BYTES:
        raise InputError(
            f"{url}: sample {key!r}, entry {name!r} claims {member.size} bytes; more than 256 MiB is refused."
        )
    return key, ENTRY_ROLES[name][0], name


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "only regular files get here"
    return file.read()


def _complete(sample: EncodedSample, roles: Collection[str]) -> EncodedSample:
    """Return the sample with the wanted entries only, each wanted role exactly once."""
    kept = {name: data for name, data in sample.entries.items() if ENTRY_ROLES[name][0] in roles}
    found = [ENTRY_ROLES[name][0] for name in kept]
    for role in roles:
        if found.count(role) != 1:
            problem = f"has no {role}" if role not in found else f"has more than one {role}"
            raise InputError(
                f"{sample.shard}: sample {sample.key!r} {problem} entry. The shard is damaged or incomplete."
            )
    return EncodedSample(sample.key, sample.shard, kept)
