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

from datamodules.shards.codecs import DECODERS, INFO, MAX_ARRAY_BYTES, check_claim, entry_roles
from datamodules.shards.manifest import ShardInfo
from datamodules.shards.transfer import DEFAULT_TRANSFER, Transfer, is_remote, open_url
from geometry.errors import InputError

# No entry of a sensible sample is larger; one that claims to be is refused before it is read.
MAX_ENTRY_BYTES = 1 << 28
MAX_HEADER_BYTES = 1 << 16


@dataclass(frozen=True)
class EncodedSample:
    """A sample whose entries are still encoded.

    Attributes:
        key: id of the sample within its data set.
        shard: path or URL of the shard it was read from; empty before it is written.
        entries: bytes of every entry by name ("image.jpg", "depth.blosc", "normals.blosc", "json").
        problem: why the sample cannot be used, naming shard and sample; empty if it can.
    """

    key: str
    shard: str
    entries: dict[str, bytes]
    problem: str = ""


class DamagedShardError(InputError):
    """A shard that cannot be read beyond some point, and could not if one tried again."""


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
    """Yield the samples of a shard in order, without decoding anything; stop at the first bad one.

    Args:
        url: path, URL or ``pipe:`` command of the shard.
        roles: entries to keep: "image", "info" and names of modalities. Others are passed over.
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
    for sample in scan_shard(url, roles, skip, transfer, sha256):
        if sample.problem:
            raise InputError(sample.problem)
        yield sample


def scan_shard(
    url: str,
    roles: Collection[str],
    skip: int = 0,
    transfer: Transfer = DEFAULT_TRANSFER,
    sha256: str | None = None,
) -> Iterator[EncodedSample]:
    """Yield the samples of a shard in order, bad ones with their problem and without entries.

    An entry whose name is no sample's is a problem of the sample around it.

    Args:
        url: as for ``iterate_shard``.
        roles: as for ``iterate_shard``.
        skip: as for ``iterate_shard``.
        transfer: as for ``iterate_shard``.
        sha256: as for ``iterate_shard``.

    Yields:
        Every further sample.

    Raises:
        DamagedShardError: the archive, a file of this machine, breaks off or is none.
        InputError: the file, connection or command fails, or what came is not what it should be.
    """
    sample, index, problem = EncodedSample("", url, {}), -1, ""
    try:
        # A local file can seek over what is not wanted; "r|" reads a stream from start to end.
        with (
            open_url(url, transfer, sha256) as stream,
            tarfile.open(fileobj=stream, mode="r|" if is_remote(url) else "r:", tarinfo=_TarInfo) as tar,
        ):
            while member := tar.next():
                key, name, complaint = _parse_member(member, url)
                if key not in ("", sample.key):
                    if index >= skip:
                        yield _complete(sample, roles, problem)
                    problem = problem if index < 0 else ""
                    sample, index = EncodedSample(key, url, {}), index + 1
                if name in sample.entries:
                    complaint = f"{url}: sample {key!r} has the entry {name!r} twice. Prepare the data set again."
                problem = problem or complaint
                if not complaint:
                    wanted = entry_roles()[name][0] in roles and index >= skip
                    sample.entries[name] = _read_member(tar, member) if wanted else b""
                tar.members.clear()  # type: ignore[attr-defined]
    except (EOFError, tarfile.TarError) as error:
        # What came over a network may come whole when the run is started again.
        kind = InputError if is_remote(url) else DamagedShardError
        raise kind(_unreadable(url, sample, error)) from error
    except OSError as error:
        raise InputError(_unreadable(url, sample, error)) from error
    if index < 0 and problem:
        raise DamagedShardError(problem)
    if index >= skip:
        yield _complete(sample, roles, problem)


class _TarInfo(tarfile.TarInfo):
    """A member of an archive, whose extended header is refused where it would fill the memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header claims {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def _unreadable(url: str, sample: EncodedSample, error: Exception) -> str:
    where = f" after sample {sample.key!r}" if sample.key else ""
    return f"shard {url} cannot be read{where}: {error}. Prepare or copy it again."


def decode_sample(sample: EncodedSample, roles: Collection[str], max_bytes: int = MAX_ARRAY_BYTES) -> dict[str, Any]:
    """Return the decoded entries of a sample.

    Args:
        sample: the sample, with at least these entries.
        roles: which entries to decode: "image", "info" and names of modalities.
        max_bytes: refuse entries that claim to be larger when decoded, before memory is reserved for them.

    Returns:
        By role: image (H,W,3) uint8 RGB; a modality (C,H,W), or (H,W) for a single channel, float; info as a
        dictionary.

    Raises:
        InputError: an entry cannot be decoded; the message names shard and sample.
    """
    decoded, known = {}, entry_roles()
    for name, data in sample.entries.items():
        role, format_name = known[name]
        if role in roles:
            try:
                check_claim(data, format_name, max_bytes)
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
    """Return key and entry name of a member of a shard, and a complaint; no key where the name is no sample's."""
    key, dot, name = member.name.partition(".")
    if not member.isreg() or not dot or not key or "/" in key or "\\" in key:
        return "", "", f"{url}: {member.name!r} is no sample's entry; names are <key>.<entry>, without folders."
    complaint = ""
    roles = entry_roles()
    if name not in roles:
        known = ", ".join(roles)
        complaint = f"{url}: sample {key!r} has an entry of unknown kind {name!r} (known: {known}). It is not read."
    elif member.size > MAX_ENTRY_BYTES:
        complaint = f"{url}: sample {key!r}, entry {name!r} claims {member.size} bytes; more than 256 MiB is refused."
    return key, name, complaint


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None, "only regular files get here"
    return file.read()


def _complete(sample: EncodedSample, roles: Collection[str], problem: str) -> EncodedSample:
    """Return the sample with each wanted role exactly once (a description at most once); or without any, and why."""
    known = entry_roles()
    kept = {name: data for name, data in sample.entries.items() if known[name][0] in roles}
    found = [known[name][0] for name in kept]
    for role in roles:
        is_missing = role not in found and role != INFO
        if not problem and (is_missing or found.count(role) > 1):
            count = f"has no {role}" if role not in found else f"has more than one {role}"
            problem = f"{sample.shard}: sample {sample.key!r} {count} entry. The shard is damaged or incomplete."
    return EncodedSample(sample.key, sample.shard, {} if problem else kept, problem)
