"""Tar files from elsewhere: every header is checked before it is followed or memory is taken for it."""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from typing import BinaryIO

from geometry.files.limits import MAX_MEMBER_BYTES, MAX_TAR_HEADER_BYTES, MAX_TAR_HEADERS_IN_A_ROW

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


@dataclass(frozen=True)
class Member:
    """One file of an archive, or something else that has a name there.

    Attributes:
        name: its name. It may hold anything.
        num_bytes: size that its header claims, not negative.
        offset: of its first byte in the archive.
        is_file: whether it is a plain file.
        read: returns its content. Only until the next member is asked for, and within ``MAX_MEMBER_BYTES``.
    """

    name: str
    num_bytes: int
    offset: int
    is_file: bool
    read: Callable[[], bytes]


def iterate_members(stream: BinaryIO, is_seekable: bool) -> Iterator[Member]:
    """Yield the members of a tar file, in order.

    The ``._*`` companions that macOS adds to files are passed over.

    Args:
        stream: the archive from its start.
        is_seekable: skip over what is not read; otherwise a stream is read from start to end.

    Yields:
        The next member.

    Raises:
        tarfile.TarError: the archive breaks off or is none, or a header claims what no shard has.
        EOFError: likewise.
        OSError: reading failed.
    """
    try:
        _refuse_compressed(stream)
        with _Archive.open(fileobj=stream, mode="r:" if is_seekable else "r|") as archive:
            while info := archive.next():
                _check_size(archive, info, is_seekable)
                if not info.name.startswith("._"):
                    yield Member(info.name, info.size, info.offset_data, info.isreg(), partial(_read, archive, info))
                archive.members.clear()  # type: ignore[attr-defined]
    except (tarfile.TarError, EOFError, OSError):
        raise
    except Exception as error:
        # tarfile turns most of a hostile header into its own errors, but not numbers that overflow.
        raise tarfile.ReadError(f"a header cannot be read ({type(error).__name__}: {str(error)[:80]})") from error


class _Header(tarfile.TarInfo):
    """A header that is refused where following it would take memory or time without end."""

    def _proc_member(self, archive: "_Archive") -> tarfile.TarInfo:
        archive.headers_in_a_row += 1
        if archive.headers_in_a_row > MAX_TAR_HEADERS_IN_A_ROW:
            raise tarfile.ReadError(f"more than {MAX_TAR_HEADERS_IN_A_ROW} extended headers precede a file")
        if self.size < 0 or (not self.isreg() and self.size > MAX_TAR_HEADER_BYTES):
            raise tarfile.ReadError(f"a header claims {self.size} bytes")
        if self.type == tarfile.GNUTYPE_SPARSE:
            self._refuse_sparse()
        return super()._proc_member(archive)  # type: ignore[misc]

    def _refuse_sparse(self, *_: object) -> None:
        raise tarfile.ReadError("files with holes are not read")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


class _Archive(tarfile.TarFile):
    """An archive that counts the headers in front of a member."""

    tarinfo = _Header
    headers_in_a_row = 0

    def next(self) -> tarfile.TarInfo | None:
        self.headers_in_a_row = 0
        return super().next()


def _check_size(archive: _Archive, info: tarfile.TarInfo, is_seekable: bool) -> None:
    # An extended header may replace the size: by a negative one, the next header would be one that was read before.
    if info.size < 0 or archive.offset < info.offset_data:
        raise tarfile.ReadError(f"a header claims {info.size} bytes")
    if not is_seekable and info.size > MAX_MEMBER_BYTES:
        raise tarfile.ReadError(f"a header claims {info.size} bytes; more than {MAX_MEMBER_BYTES} are refused")


def _refuse_compressed(stream: BinaryIO) -> None:
    start = stream.peek(8) if isinstance(stream, BufferedReader) else b""
    for magic, name in _COMPRESSIONS.items():
        if start.startswith(magic):
            raise tarfile.ReadError(f"it is compressed ({name}), shards are plain tar: decompress it")


def _read(archive: _Archive, info: tarfile.TarInfo) -> bytes:
    assert info.size <= MAX_MEMBER_BYTES, "refused by whoever looks at the size"
    file = archive.extractfile(info)
    assert file is not None, "only plain files are read"
    return file.read()
