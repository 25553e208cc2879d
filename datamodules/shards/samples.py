"""Samples of a shard: members of a tar file, gathered by their keys."""

import tarfile
from collections.abc import Collection
from dataclasses import dataclass

from datamodules.shards.archives import Member
from datamodules.shards.codecs import INFO, entry_roles
from datamodules.untrusted.text import shorten
from geometry.files.limits import MAX_KEY_LETTERS, MAX_MEMBER_BYTES, MAX_MEMBERS_PER_SAMPLE, MIB


@dataclass(frozen=True)
class EncodedSample:
    """A sample whose entries are still encoded.

    Attributes:
        key: id of the sample within its data set.
        shard: path or URL of the shard it was read from; empty before it is written.
        entries: bytes of every entry by name ("image.jpg", "depth.blosc", "json").
        problem: why the sample cannot be used, naming shard and sample; empty if it can.
    """

    key: str
    shard: str
    entries: dict[str, bytes]
    problem: str = ""


class Gatherer:
    """Gathers neighbouring members with one key into samples, and finds what is wrong with them.

    An entry whose name is no sample's is a problem of the sample around it.

    Args:
        url: path or URL of the shard, for messages.
        roles: entries to keep; others are passed over.
        skip: number of samples at the start to leave out; their entries are not read.

    Attributes:
        problem: what is wrong with the sample under way; empty if nothing is.
    """

    def __init__(self, url: str, roles: Collection[str], skip: int) -> None:
        self._url, self._roles, self._skip = url, roles, skip
        self._sample, self._index, self._num_members = EncodedSample("", url, {}), -1, 0
        self._keys: set[str] = set()
        self.problem = ""

    @property
    def key(self) -> str:
        """Key of the sample under way, empty before the first."""
        return self._sample.key

    @property
    def is_useless(self) -> bool:
        """Whether members came, but none of a sample."""
        return self._index < 0 and self.problem != ""

    def add(self, member: Member) -> EncodedSample | None:
        """Add the next member; return the sample that ended before it, if one did.

        Raises:
            tarfile.ReadError: members come without end, but no further sample.
        """
        key, name, complaint = _parse_member(member, self._url)
        finished = None
        if key not in ("", self._sample.key):
            finished = self.finish()
            self._keys.add(self._sample.key)
            self.problem = self.problem if self._index < 0 else ""
            self._sample, self._index, self._num_members = EncodedSample(key, self._url, {}), self._index + 1, 0
        self._num_members += 1
        if self._num_members > MAX_MEMBERS_PER_SAMPLE:
            raise tarfile.ReadError(f"{self._num_members} members follow each other without another sample")
        if name in self._sample.entries:
            complaint = f"{self._url}: sample {key!r} has the entry {name!r} twice. Prepare the data set again."
        self.problem = self.problem or complaint
        if not complaint:
            wanted = entry_roles()[name][0] in self._roles and self._index >= self._skip
            self._sample.entries[name] = member.read() if wanted else b""
        return finished

    def finish(self) -> EncodedSample | None:
        """Return the sample under way with the wanted entries, each once; or without any, and why.

        None before the first sample, and where it is to be left out.
        """
        if self._index < max(self._skip, 0):
            return None
        sample = self._sample
        known = entry_roles()
        kept = {name: data for name, data in sample.entries.items() if known[name][0] in self._roles}
        problem = self.problem or self._find_gap([known[name][0] for name in kept])
        return EncodedSample(sample.key, sample.shard, {} if problem else kept, problem)

    def _find_gap(self, found: list[str]) -> str:
        for role in self._roles:
            is_missing = role not in found and role != INFO  # the camera may be unknown
            if is_missing or found.count(role) > 1:
                count = f"has no {role}" if role not in found else f"has more than one {role}"
                remedy = "The shard is damaged or incomplete."
                if self.key in self._keys:
                    remedy = "Its entries do not follow each other: pack the shard with tar --sort=name."
                return f"{self._url}: sample {self.key!r} {count} entry. {remedy}"
        return ""


def _parse_member(member: Member, url: str) -> tuple[str, str, str]:
    """Return key and entry name of a member of a shard, and a complaint; no key where the name is no sample's."""
    key, dot, name = member.name.partition(".")
    if not member.is_file or not dot or not key or "/" in key or "\\" in key:
        remedy = (
            " Pack the files themselves (cd FOLDER; tar -cf SHARD *), not '.'." if key == "" and "/" in name else ""
        )
        shown = shorten(member.name)
        return "", "", f"{url}: {shown} is no sample's entry; names are <key>.<entry>, without folders.{remedy}"
    if not key.isprintable() or len(key) > MAX_KEY_LETTERS:
        shown = shorten(key)
        return shown, "", f"{url}: {shown} cannot be a sample's key: too long, no UTF-8, or with control characters."
    complaint = ""
    roles = entry_roles()
    if name not in roles:
        known = f"known: {', '.join(roles)}"
        complaint = f"{url}: sample {key!r} has an entry of unknown kind {shorten(name)} ({known}). It is not read."
    elif member.num_bytes > MAX_MEMBER_BYTES:
        claim = f"claims {member.num_bytes} bytes; more than {MAX_MEMBER_BYTES // MIB} MiB is refused."
        complaint = f"{url}: sample {key!r}, entry {name!r} {claim}"
    return key, name, complaint
