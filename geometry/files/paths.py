"""Paths as people write them: in configurations and after options that no shell expands."""

import argparse
import os
import tempfile
from pathlib import Path

from geometry.errors import InputError

# What file systems take; calls that meet more raise an error that none of their callers expects.
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 4095


def given_path(text: str | os.PathLike[str], option: str = "a path") -> Path:
    """Return the path that somebody gave, with ``~`` expanded.

    Args:
        text: for instance ``~/shards``. Nothing is refused, which is what a variable that is not set leaves behind: it
            would mean the working folder.
        option: name of the option, for the message.

    Raises:
        InputError: the text is empty or too long, can be no path, or names a user that is not there.
    """
    text = os.fspath(text)
    if not text.strip() or "\0" in text:
        raise InputError(f"{option} is {'empty' if not text.strip() else 'no path: it holds a zero byte'}.")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{option} {text}: there is no such user's folder.") from error
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > _MAX_NAME_BYTES or len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise InputError(f"{option} {text[:40]}...: this is too long for a path.")
    return path


def path_argument(text: str) -> Path:
    """Return ``given_path`` of a word on the command line, as the ``type`` of an option of argparse.

    Raises:
        ArgumentTypeError: the word can be no path.
    """
    try:
        return given_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def folder_or_url(text: str) -> str:
    """Return a folder or URL on the command line as it is, but for ``~``.

    Raises:
        ArgumentTypeError: there is no such user.
    """
    return str(path_argument(text)) if text.startswith("~") else text


def check_writable(folder: Path, option: str) -> None:
    """Check that a folder can be made and written to, before hours are spent; nothing is left behind.

    Args:
        folder: it need not exist.
        option: name of the option that sets it, for the message.

    Raises:
        InputError: it is a file, lies below one, or may not be written to.
    """
    try:
        place = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryDirectory(dir=place, prefix=".onestep-") as trial:
            Path(trial, folder.name or "trial").touch()
    except OSError as error:
        raise InputError(f"{option} {folder} cannot be written to ({error.strerror}). Give another folder.") from error
