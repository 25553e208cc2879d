"""Your own data: which files belong together, and which split they go to."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.sources.array_files import ARRAY_SUFFIXES
from datamodules.sources.protocol import FrameList
from datamodules.streaming.order import stable_hash
from geometry.errors import InputError
from geometry.files.listing import is_junk
from geometry.files.photo_kinds import HEIF_SUFFIXES, can_read_heif, describe_unreadable
from geometry.files.reading import read_text_file
from geometry.modalities import modality_named

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(HEIF_SUFFIXES if can_read_heif() else ()),
)
MAX_KEY_LETTERS = 80


class FolderFrame(NamedTuple):
    """An image with the files that hold its targets.

    Attributes:
        identifier: what the names have in common, for instance "kitchen/0001".
        image: file of the image.
        targets: files by modality.
    """

    identifier: str
    image: Path
    targets: Mapping[str, Path]

    @property
    def key(self) -> str:
        """Id of the sample: the identifier in letters, digits, _ and -, for instance "kitchen-0001"."""
        key = re.sub(r"[^A-Za-z0-9_-]", "_", self.identifier.replace("/", "-"))
        if len(key) <= MAX_KEY_LETTERS:
            return key
        return f"{key[-60:]}-{hashlib.sha256(self.identifier.encode()).hexdigest()[:12]}"

    @property
    def scene(self) -> str:
        """Folder that the image lies in, below the folder of images; empty at its top."""
        return self.identifier.rpartition("/")[0]


@dataclass(frozen=True)
class NamedFiles:
    """A folder of files of one kind, and how they are named.

    Attributes:
        folder: searched with everything below it; hidden files and those of systems (``Thumbs.db``) are passed over.
        pattern: None takes every file of a known format. Otherwise what names look like, with ``{}`` for the part that
            files of other kinds share: "rgb_{}.jpg" for names alone, "{}/color/{}.png" for paths below the folder.
    """

    folder: Path
    pattern: str | None = None

    def scan(self, suffixes: tuple[str, ...], what: str) -> dict[str, Path]:
        """Return the files by identifier, in order.

        Args:
            suffixes: formats to take, in lower case.
            what: "image" or the name of a modality, for messages.

        Returns:
            At least one file.

        Raises:
            InputError: the folder is missing or holds no such file, the pattern is none, or two files have one
                identifier.
        """
        if not self.folder.is_dir():
            raise InputError(f"{self.folder} is not a folder. Give the folder of the {what} files.")
        found: dict[str, Path] = {}
        for path in sorted(_files_below(self.folder)):
            if path.suffix.lower() not in suffixes:
                continue
            identifier = self._identifier(path.relative_to(self.folder).as_posix())
            if identifier is None:
                continue
            if identifier in found:
                raise InputError(
                    f"{found[identifier]} and {path} are both the {what} of {identifier!r}. Keep one of them, or tell "
                    f"them apart by --{what}_pattern."
                )
            found[identifier] = path
        if not found:
            named = f" named like {self.pattern!r}" if self.pattern else ""
            unread = f" {notice}" if (notice := self.unreadable()) else ""
            raise InputError(f"{self.folder} holds no {what} file{named} ({', '.join(suffixes)}).{unread}")
        return found

    def unreadable(self) -> str:
        """Return a sentence on the HEIC and RAW photos in the folder that are not read; nothing without any."""
        return describe_unreadable([path.name for path in sorted(_files_below(self.folder))])

    def _identifier(self, name: str) -> str | None:
        """Return what stands for ``{}`` in a path, None if it is not named like the pattern."""
        folder, slash, file = name.rpartition("/")
        if self.pattern is None:
            return f"{folder}{slash}{os.path.splitext(file)[0]}"
        if "{}" not in self.pattern:
            raise InputError(f"the pattern {self.pattern!r} holds no {{}} for the part that names share.")
        expression = "([^/]+)".join(map(re.escape, self.pattern.split("{}")))
        if "/" in self.pattern:
            match = re.fullmatch(expression, name)
            return match and "/".join(match.groups())
        match = re.fullmatch(expression, file)
        return match and f"{folder}{slash}{'-'.join(match.groups())}"


@dataclass(frozen=True)
class FolderSplit:
    """Split.

    Attributes:
        val_fraction: Share of the folders of images that is held out for validation; of the images if there is one
            folder.
        val_list: Text file that names the folders or images to hold out, one a line.
    """

    val_fraction: float = 0.0
    val_list: Path | None = None

    def options(self) -> dict[str, Any]:
        """Return the choices for ``dataset.json``."""
        return {"val_fraction": self.val_fraction, "val_list": self.val_list and self.val_list.name}

    def apply(self, frames: list[FolderFrame]) -> FrameList:
        """Return the frames by split.

        Raises:
            InputError: the share is out of range, a line of the list names nothing, or nothing is left to train on.
        """
        if not 0 <= self.val_fraction < 1:
            raise InputError(f"--val_fraction must be at least 0 and below 1, not {self.val_fraction}.")
        if self.val_list is not None and self.val_fraction:
            raise InputError("give --val_fraction or --val_list, not both.")
        notices = []
        if self.val_list is not None:
            held_out = _read_val_list(self.val_list, frames)
        elif self.val_fraction:
            held_out, notice = self._draw(frames)
            notices.append(notice)
        else:
            held_out = set()
            notices.append("Splits: every image goes to train. Hold some out with --val_fraction or --val_list.")
        listed = FrameList.parted(frames, lambda frame: frame.identifier in held_out, notices)
        if "train" not in listed.splits:
            raise InputError(f"all {len(frames)} images are held out for validation; none is left to train on.")
        return listed

    def _draw(self, frames: list[FolderFrame]) -> tuple[set[str], str]:
        """Return the identifiers held out, chosen by a hash of their names, and a sentence about it."""
        scenes = sorted({frame.scene for frame in frames})
        by_scene = len(scenes) > 1
        names = scenes if by_scene else [frame.identifier for frame in frames]
        count = max(1, round(self.val_fraction * len(names)))
        drawn = set(sorted(names, key=lambda name: stable_hash("val", name))[:count])
        held_out = {frame.identifier for frame in frames if (frame.scene if by_scene else frame.identifier) in drawn}
        if by_scene:
            return held_out, f"Splits: {count} of {len(scenes)} folders held out for validation."
        return held_out, (
            f"Splits: {count} of {len(names)} images held out for validation. All lie in one folder: if they are "
            "neighbours in a video, put scenes into folders of their own or give --val_list."
        )


def match_files(
    images: NamedFiles, targets: Mapping[str, NamedFiles], skip_missing: bool
) -> tuple[list[FolderFrame], list[str]]:
    """Return the images with the files that belong to them.

    Args:
        images: where images are.
        targets: where the values of every modality are.
        skip_missing: leave out images that lack a file, and count them.

    Returns:
        Frames in order, and notices about what was left out.

    Raises:
        InputError: a folder cannot be used, an image lacks a file, or two images would make one key.
    """
    paths = images.scan(IMAGE_SUFFIXES, "image")
    found = {name: files.scan(suffixes_of(name), name) for name, files in targets.items()}
    complete = [name for name in paths if all(name in files for files in found.values())]
    notices = [notice] if (notice := images.unreadable()) else []
    for what, files in found.items():
        missing = [name for name in paths if name not in files]
        if missing and not (skip_missing and complete):
            raise InputError(
                f"{len(missing)} of {len(paths)} images have no {what}: nothing in {targets[what].folder} belongs "
                f"to {paths[missing[0]]} (looked for {missing[0]!r}). Names must agree up to the extension; give "
                f"--image_pattern and --{what}_pattern where they differ, or leave such images out by --missing skip."
            )
        if missing:
            notices.append(f"Left out: {len(missing)} image(s) without {what} (such as {missing[0]}).")
    for what, files in found.items():
        spare = sum(name not in paths for name in files)
        if spare:
            notices.append(f"Left out: {spare} {what} file(s) without an image.")
    frames = [FolderFrame(name, paths[name], {what: found[what][name] for what in found}) for name in complete]
    by_key: dict[str, FolderFrame] = {}
    for frame in frames:
        other = by_key.setdefault(frame.key, frame)
        if other is not frame:
            raise InputError(f"{other.image} and {frame.image} would both have the key {frame.key!r}. Rename one.")
    return frames, notices


def suffixes_of(modality: str) -> tuple[str, ...]:
    """Return the formats of files that hold a modality, in lower case."""
    of_images = IMAGE_SUFFIXES if modality_named(modality).has_image_files else ()
    return tuple(dict.fromkeys((*ARRAY_SUFFIXES, *of_images)))


def _files_below(folder: Path) -> list[Path]:
    """Return what is no hidden file, and none that a system has put beside the others."""
    found = (path for path in folder.rglob("*") if not path.name.startswith(".") and path.is_file())
    return [path for path in found if not is_junk(path.relative_to(folder))]


def _read_val_list(path: Path, frames: list[FolderFrame]) -> set[str]:
    """Return the identifiers that a list names one by one or by their folder."""
    lines = read_text_file(path).split("\n")
    identifiers = {frame.identifier for frame in frames}
    folders: dict[str, set[str]] = {}
    for frame in frames:
        parts = frame.identifier.split("/")[:-1]
        for level in range(1, len(parts) + 1):
            folders.setdefault("/".join(parts[:level]), set()).add(frame.identifier)
    held_out: set[str] = set()
    for number, line in enumerate(lines, start=1):
        name = line.strip().strip("/")
        if not name or name.startswith("#"):
            continue
        members = {name} & identifiers or folders.get(name) or {os.path.splitext(name)[0]} & identifiers
        if not members:
            raise InputError(f"{path}, line {number}: {name!r} is neither an image nor a folder of images.")
        held_out |= members
    if not held_out:
        raise InputError(f"{path} names no image and no folder to hold out. Fill it, or leave --val_list out.")
    return held_out
