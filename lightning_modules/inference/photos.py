"""Which images are meant, and what each one's results are called."""

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from geometry.errors import InputError
from geometry.files.listing import is_junk
from geometry.files.paths import given_path
from geometry.files.photo_kinds import is_photo
from lightning_modules.inference.image_inputs import SUFFIXES

# Names of files may have 255 bytes; results add an ending, temporary files a random part.
_LONGEST_STEM_BYTES = 180


@dataclass(frozen=True)
class Photo:
    """An image to predict.

    Attributes:
        file: the image.
        folder: folder of its results, relative to the output folder.
        stem: what the names of its results begin with; unique in that folder.
    """

    file: Path
    folder: Path
    stem: str


def find_photos(inputs: Sequence[str], output: Path) -> list[Photo]:
    """Return the images that files, folders and patterns name, each once, with names that never collide.

    Folders are searched with all their subfolders, for files that end like an image; links to folders are not
    followed, and the output folder is left out, as are the files that systems put beside images, such as
    ``._photo.jpg``. Files that are named themselves are taken whatever they end in. HEIC and RAW photos are listed,
    too, so that those which cannot be read are named.

    Args:
        inputs: files, folders, and patterns such as ``photos/**/*.jpg``.
        output: folder of the results.

    Raises:
        InputError: an input names nothing.
    """
    found: dict[Path, Path] = {}
    for name in inputs:
        candidates = list(_expand(name, output.absolute()))
        if not candidates:
            raise InputError(f"{name}: there is no such file, no file matches, or the folder holds no images.")
        for file, folder in candidates:
            found.setdefault(file, folder)
    return _with_names(found)


def _expand(name: str, output: Path) -> Iterator[tuple[Path, Path]]:
    """Yield files, and the folders of their results relative to the output."""
    path = Path(os.path.abspath(given_path(name, "the image")))
    if path.is_dir():
        for top, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if Path(top, name) != output and not is_junk(name))
            for file in sorted(files):
                if (Path(file).suffix.lower() in SUFFIXES or is_photo(file)) and not is_junk(file):
                    yield Path(top, file), Path(top).relative_to(path)
    elif os.path.lexists(path):
        yield path, Path()
    else:
        for match in sorted(glob.glob(os.path.expanduser(name), recursive=True)):
            if not os.path.isdir(match) and (is_junk(name) or not is_junk(match)):
                yield Path(os.path.abspath(match)), Path()


def _with_names(found: dict[Path, Path]) -> list[Photo]:
    """Give every file a stem: its own, or with its ending where two would share it.

    Some file systems do not tell upper from lower case.
    """
    stems = Counter((folder, _short(file.stem).casefold()) for file, folder in found.items())
    photos: list[Photo] = []
    taken: set[tuple[Path, str]] = set()
    for file, folder in found.items():
        stem = _short(file.stem)
        if stems[(folder, stem.casefold())] > 1:
            stem = _short(f"{file.stem}_{file.suffix.lstrip('.')}")
        candidate, number = stem, 1
        while (folder, candidate.casefold()) in taken or (
            candidate != _short(file.stem) and (folder, candidate.casefold()) in stems
        ):
            number += 1
            candidate = f"{stem}_{number}"
        taken.add((folder, candidate.casefold()))
        photos.append(Photo(file, folder, candidate))
    return photos


def _short(stem: str) -> str:
    """Cut a long name, and add what tells it from others with the same beginning."""
    encoded = os.fsencode(stem)
    if len(encoded) <= _LONGEST_STEM_BYTES:
        return stem
    mark = hashlib.blake2b(encoded, digest_size=4).hexdigest()
    return f"{encoded[: _LONGEST_STEM_BYTES - 9].decode('utf-8', errors='ignore')}~{mark}"
