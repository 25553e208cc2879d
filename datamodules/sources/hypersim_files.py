"""Hypersim's files, wherever they lie: in extracted folders, or still inside the released ``ai_*.zip`` archives.

Archives are read in place. A scene may be extracted in part: a file on disk is taken before the one in the archive.
"""

import re
import struct
import sys
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from geometry.errors import InputError
from geometry.files.limits import MAX_ARRAY_BYTES, MIB
from geometry.files.reading import open_regular_file, read_regular_file, require_bytes
from geometry.files.zip_archives import open_zip


class Content(NamedTuple):
    """What a file of a frame holds.

    Attributes:
        folder: "final" or "geometry".
        dtype: kind of its numbers: "f" or "i".
        shape: () for one number per pixel, (3,) for three.
    """

    folder: str
    dtype: str
    shape: tuple[int, ...]


# What preparation reads; what else there is (previews, positions, ...) is many times as much and not indexed.
CONTENTS = {
    "color": Content("final", "f", (3,)),
    "diffuse_reflectance": Content("final", "f", (3,)),
    "depth_meters": Content("geometry", "f", ()),
    "normal_cam": Content("geometry", "f", (3,)),
    "render_entity_id": Content("geometry", "i", ()),
}
_SCENE = r"ai_\d{3}_\d{3}"
_WANTED = re.compile(
    r"(?:ai_\d{3}_\d{3}/)?(images/scene_[\w-]+_(?:final|geometry)_hdf5/frame\.\d+\."
    rf"(?:{'|'.join(CONTENTS)})\.hdf5)"
)
_MAX_FILE_BYTES = MAX_ARRAY_BYTES + 16 * MIB
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class _Member(NamedTuple):
    """Where a member's bytes are in its archive."""

    header_offset: int
    stored_bytes: int
    num_bytes: int
    method: int
    crc: int


@dataclass(frozen=True)
class HypersimFiles:
    """The raw folder of Hypersim: folders ``ai_VVV_NNN``, archives ``ai_VVV_NNN.zip``, or both.

    Attributes:
        raw: the folder.
    """

    raw: Path

    def find(self, content: str) -> list[tuple[str, str]]:
        """Return the scene and the path within the scene of every file of a kind, each once, in order.

        Args:
            content: one of ``CONTENTS``.

        Raises:
            InputError: an archive is damaged.
        """
        folder, end = f"_{CONTENTS[content].folder}_hdf5", f".{content}.hdf5"
        extracted = self.raw.glob(f"*/images/scene_*{folder}/frame.*{end}")
        found = {(path.parts[-4], "/".join(path.parts[-3:])) for path in extracted}
        for archive in self.raw.glob("ai_*.zip"):
            if re.fullmatch(_SCENE, archive.stem):
                found |= {(archive.stem, name) for name in _index(archive) if folder in name and name.endswith(end)}
        return sorted(found)

    def exists(self, scene: str, name: str) -> bool:
        """Whether a file of a scene is on disk or in the scene's archive."""
        return (self.raw / scene / name).is_file() or name in self._members(scene)

    def read(self, scene: str, name: str) -> bytes:
        """Return the bytes of a file of a scene.

        Args:
            scene: for instance "ai_001_001".
            name: path within the scene, "images/...".

        Raises:
            FileNotFoundError: there is no such file.
            OSError: it cannot be read, or its checksum in the archive is wrong.
            InputError: it is no regular file, or too large.
        """
        path = self.raw / scene / name
        if path.is_file() or name not in self._members(scene):
            return read_regular_file(path, _MAX_FILE_BYTES)
        return _read_member(self._archive(scene), self._members(scene)[name])

    def describe(self, scene: str, name: str) -> str:
        """Return the place of a file, for messages."""
        path = self.raw / scene / name
        return str(path) if path.is_file() or not self._archive(scene).is_file() else f"{self._archive(scene)}: {name}"

    def _archive(self, scene: str) -> Path:
        return self.raw / f"{scene}.zip"

    def _members(self, scene: str) -> dict[str, _Member]:
        archive = self._archive(scene)
        return _index(archive) if archive.is_file() else {}


# All of Hypersim has 457 archives with some 600 files of interest each: about 100 MB when all are indexed.
@lru_cache(maxsize=512)
def _index(archive: Path) -> dict[str, _Member]:
    """Return the files of interest in an archive by their path within the scene."""
    try:
        with open_zip(archive) as file:
            return {
                match[1]: _Member(info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC)
                for info in file.infolist()
                if (match := _WANTED.fullmatch(info.filename))
            }
    except Exception as error:  # zipfile has no error of its own for odd dates, names and extra fields
        raise InputError(f"{archive} is no complete archive ({error}). Download it again, or move it away.") from error


def _read_member(archive: Path, member: _Member) -> bytes:
    """Return a member's content. ``zipfile`` would parse the whole directory again for every archive opened."""
    require_bytes(max(member.stored_bytes, member.num_bytes), _MAX_FILE_BYTES, "a file in the archive")
    with open_regular_file(archive, sys.maxsize) as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise OSError("no file where the archive's directory says there is one")
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        file.seek(name_bytes + extra_bytes, 1)
        data = file.read(member.stored_bytes)
    if member.method == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.num_bytes + 1)
        except zlib.error as error:
            raise OSError(f"damaged inside the archive: {error}") from error
    elif member.method != zipfile.ZIP_STORED:
        raise OSError(f"compressed in a way that is not supported (method {member.method})")
    if len(data) != member.num_bytes or zlib.crc32(data) != member.crc:
        raise OSError("its checksum in the archive is wrong")
    return data
