"""The files of a benchmark, wherever they lie: in an extracted folder, or still inside the released .tar or .zip."""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from geometry.errors import InputError

_BLOCK_BYTES = 512


@dataclass(frozen=True)
class BenchmarkFiles:
    """A folder or an archive, read in place. Safe to hand to loader processes.

    Attributes:
        root: the folder, the .tar or the .zip.
        places: where every complete file lies, by its path inside with forward slashes: the offset of its first byte
            in a .tar, and its size in bytes. Both are -1 elsewhere.
        damage: what is wrong with the archive as a whole; empty if nothing is.
    """

    root: Path
    places: dict[str, tuple[int, int]] = field(repr=False)
    damage: str = ""

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Args:
            name: its path inside, for instance ``test/kitchen_0004/rgb_0001.png``.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be read.
        """
        if name not in self.places:
            raise FileNotFoundError(f"{name} is missing")
        if self.root.is_dir():
            return (self.root / name).read_bytes()
        if self.root.suffix == ".zip":
            return _read_zip_member(self.root, name)
        offset, size = self.places[name]
        with self.root.open("rb") as file:
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
        found = ((Path(folder), name) for folder, _, names in os.walk(path, followlinks=True) for name in names)
        return BenchmarkFiles(path, {(folder / name).relative_to(path).as_posix(): (-1, -1) for folder, name in found})
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                return BenchmarkFiles(path, {i.filename: (-1, -1) for i in archive.infolist() if not i.is_dir()})
        return _index_tar(path)
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
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


def _index_tar(path: Path) -> BenchmarkFiles:
    """Read the headers; a file that is cut off, and what follows it, is left out."""
    places: dict[str, tuple[int, int]] = {}
    total = path.stat().st_size
    end, damage = 0, ""
    with tarfile.open(path, "r:") as archive:
        try:
            for member in archive:
                end = member.offset_data + -(-member.size // _BLOCK_BYTES) * _BLOCK_BYTES
                if member.isfile() and member.offset_data + member.size <= total:
                    places[member.name.removeprefix("./")] = (member.offset_data, member.size)
        except tarfile.TarError as error:
            damage = str(error)
    if not damage and not _has_end_mark(path, end):
        damage = "the mark of its end is missing"
    if damage:
        damage = f"the archive {path} is cut off or damaged after {len(places)} files ({damage})"
    return BenchmarkFiles(path, places, damage)


def _has_end_mark(path: Path, end: int) -> bool:
    with path.open("rb") as file:
        file.seek(end)
        return file.read(_BLOCK_BYTES) == bytes(_BLOCK_BYTES)


def _read_zip_member(path: Path, name: str) -> bytes:
    try:
        return _open_zip(path, os.getpid()).read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OSError(f"{name}: {error}") from error


@lru_cache(maxsize=8)
def _open_zip(path: Path, _process: int) -> zipfile.ZipFile:
    """Keep an archive open in each process: forked processes must not share a position in it."""
    return zipfile.ZipFile(path)
