"""The files of a benchmark, wherever they lie: in an extracted folder, or still inside the released .tar or .zip."""

import os
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from datamodules.shards.archives import iterate_members
from geometry.errors import InputError
from geometry.files.limits import MAX_ARRAY_BYTES, MIB
from geometry.files.listing import is_junk
from geometry.files.reading import open_regular_file, read_regular_file, require_bytes
from geometry.files.zip_archives import open_zip, read_zip_member

_BLOCK_BYTES = 512
_MAX_FILE_BYTES = MAX_ARRAY_BYTES + MIB


@dataclass(frozen=True)
class BenchmarkFiles:
    """A folder or an archive, read in place. Safe to hand to loader processes.

    Attributes:
        root: the folder, the .tar or the .zip.
        places: where every complete file lies, by its path inside with forward slashes: the offset of its first byte
            in a .tar, and its size in bytes. Both are -1 elsewhere.
        damage: what is wrong with the archive as a whole; empty if nothing is.
        beside: further folders or archives of a data set that is released in several; ``places`` holds theirs, too.
    """

    root: Path
    places: dict[str, tuple[int, int]] = field(repr=False)
    damage: str = ""
    beside: tuple["BenchmarkFiles", ...] = field(default=(), repr=False)

    @property
    def roots(self) -> list[Path]:
        """All folders and archives that the files come from."""
        return [self.root, *(other.root for other in self.beside)]

    def joined(self, others: Sequence["BenchmarkFiles"]) -> "BenchmarkFiles":
        """Return these files and others as if they lay in one place; of two with one name, these come first.

        Args:
            others: further parts of the data set.
        """
        places = {name: place for files in (*reversed(others), self) for name, place in files.places.items()}
        own = set(self.places)
        beside = [replace(other, places={k: v for k, v in other.places.items() if k not in own}) for other in others]
        damage = "; ".join(files.damage for files in (self, *others) if files.damage)
        return BenchmarkFiles(self.root, places, damage, tuple(beside))

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Args:
            name: its path inside, for instance ``test/kitchen_0004/rgb_0001.png``.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be read.
            InputError: it is no regular file, or too large.
        """
        if name not in self.places:
            raise FileNotFoundError(f"{name} is missing")
        for other in self.beside:
            if name in other.places:
                return other.read(name)
        if self.root.is_dir():
            return read_regular_file(self.root / name, _MAX_FILE_BYTES)
        if self.root.suffix == ".zip":
            return read_zip_member(_open_zip(self.root, os.getpid()), name, _MAX_FILE_BYTES)
        offset, size = self.places[name]
        require_bytes(size, _MAX_FILE_BYTES, name)
        with open_regular_file(self.root, sys.maxsize) as file:
            file.seek(offset)
            return file.read(size)


def open_files(path: Path) -> BenchmarkFiles:
    """Return the files in a folder or an archive; archives are indexed once, by their headers.

    Args:
        path: folder, .tar (not compressed) or .zip.

    Raises:
        InputError: the archive cannot be read at all.
    """
    if path.is_dir():
        return BenchmarkFiles(path, dict.fromkeys(_files_below(path), (-1, -1)))
    try:
        if path.suffix == ".zip":
            with open_zip(path) as archive:
                names = [member.filename for member in archive.infolist() if not member.is_dir()]
            return BenchmarkFiles(path, {name: (-1, -1) for name in names if not is_junk(name)})
        return _index_tar(path)
    except Exception as error:  # neither zipfile nor tarfile has an error of its own for every oddity
        raise InputError(
            f"{path} cannot be read as an archive ({error}). Download it again; a compressed .tar must be unpacked."
        ) from error


def find_files(root: Path, archives: Sequence[str], folders: Sequence[str]) -> list[Path]:
    """Return the places under a root where a benchmark may lie, archives first.

    Args:
        root: folder that holds the benchmarks, or folders that do.
        archives: names of the released archives.
        folders: names that extracted folders go by, for instance ``dsine_eval/nyuv2``.
    """
    found = [path for name in archives for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_file()]
    found += [path for name in folders for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_dir()]
    return found


def _files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of what is no junk; links to folders are followed, but never in a circle."""
    seen: set[str] = set()
    for top, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(top)
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = [name for name in folders if not is_junk(name)]
        yield from ((Path(top) / name).relative_to(folder).as_posix() for name in names if not is_junk(name))


def _index_tar(path: Path) -> BenchmarkFiles:
    """Read the headers; a file that is cut off, and what follows it, is left out."""
    places: dict[str, tuple[int, int]] = {}
    end, damage = 0, ""
    with open_regular_file(path, sys.maxsize) as stream:
        total = os.fstat(stream.fileno()).st_size
        try:
            for member in iterate_members(stream, is_seekable=True):
                end = member.offset + -(-member.num_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
                if member.is_file and not is_junk(member.name) and member.offset + member.num_bytes <= total:
                    places[member.name.removeprefix("./")] = (member.offset, member.num_bytes)
        except (tarfile.TarError, EOFError) as error:
            if not end:
                raise
            damage = str(error) or type(error).__name__
        if not damage:
            stream.seek(end)
            damage = "" if stream.read(_BLOCK_BYTES) == bytes(_BLOCK_BYTES) else "the mark of its end is missing"
    if damage:
        damage = f"the archive {path} is cut off or damaged after {len(places)} files ({damage})"
    return BenchmarkFiles(path, places, damage)


@lru_cache(maxsize=8)
def _open_zip(path: Path, _process: int) -> zipfile.ZipFile:
    """Keep an archive open in each process: forked processes must not share a position in it."""
    return open_zip(path)
