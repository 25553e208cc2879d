"""Zip files from elsewhere: their directory is bounded before memory is taken for it."""

import sys
import zipfile
from pathlib import Path
from typing import IO, Any, cast

from geometry.files.limits import MAX_ZIP_DIRECTORY_BYTES
from geometry.files.reading import open_regular_file, require_bytes


def open_zip(source: Path | IO[bytes], max_bytes: int = sys.maxsize) -> zipfile.ZipFile:
    """Return a zip file, be it a .npz or a checkpoint, whose directory is no larger than it may be.

    ``zipfile`` reads as much as the end of a file claims its directory to have, and makes an object of every entry.

    Args:
        source: a path, or an open file, which stays open.
        max_bytes: refuse larger files; only for a path.

    Returns:
        The archive, to be used in a ``with`` statement; its members are read by ``read_zip_member``.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it is no regular file, larger, or its directory is.
        zipfile.BadZipFile: it is no zip file; other errors of ``zipfile`` come with odd ones.
    """
    if not isinstance(source, Path):
        return _Archive(source)
    stream = open_regular_file(source, max_bytes)
    try:
        return _Archive(stream, is_own=True)
    except BaseException:
        stream.close()
        raise


def read_zip_member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Return a file of an archive, unpacked to a bounded size.

    Args:
        archive: the archive.
        name: the file's path in it.
        max_bytes: largest size, unpacked.

    Raises:
        InputError: it claims more than ``max_bytes``, or unpacks to more.
        OSError: it is damaged, encrypted or packed in an unknown way.
    """
    info = archive.getinfo(name)
    require_bytes(info.file_size, max_bytes, name)
    try:
        with archive.open(info) as member:
            data = member.read(max_bytes + 1)
    except Exception as error:  # zipfile, zlib, bz2 and lzma each have errors of their own
        raise OSError(f"{name}: {error or type(error).__name__}") from error
    require_bytes(len(data), max_bytes, name)
    return data


class _Archive(zipfile.ZipFile):
    """An archive that reads no large directory, and closes its file if it has opened it."""

    def __init__(self, stream: IO[bytes], is_own: bool = False) -> None:
        self._own = stream if is_own else None
        bounded = _Bounded(stream)
        super().__init__(cast(IO[bytes], bounded))
        bounded.max_bytes = None

    def close(self) -> None:
        super().close()
        if self._own is not None:
            self._own.close()


class _Bounded:
    """A file that refuses to be read in large pieces, as it is while an archive's directory is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.max_bytes: int | None = MAX_ZIP_DIRECTORY_BYTES

    def read(self, num_bytes: int = -1) -> bytes:
        if self.max_bytes is None:
            return self._stream.read(num_bytes)
        require_bytes(num_bytes, self.max_bytes, "the archive's directory")
        return self._stream.read(num_bytes if num_bytes >= 0 else self.max_bytes)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a file has
        return getattr(self._stream, name)
