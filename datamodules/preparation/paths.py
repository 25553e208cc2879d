"""Paths on the command line of preparation."""

import argparse
from pathlib import Path


def user_path(text: str) -> Path:
    """Return a path; ``~`` is somebody's home, also where no shell has expanded it.

    Args:
        text: a word of the command line.

    Raises:
        argparse.ArgumentTypeError: there is no such user.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{text}: there is no such user's folder") from error


def folder_or_url(text: str) -> str:
    """Return a folder or URL as it is, but for ``~``.

    Args:
        text: a word of the command line.

    Raises:
        argparse.ArgumentTypeError: there is no such user.
    """
    return str(user_path(text)) if text.startswith("~") else text
