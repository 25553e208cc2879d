"""Reading files from elsewhere: regular ones alone, and never more of them than expected."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from geometry.errors import InputError
from geometry.files.limits import MAX_TEXT_BYTES, MIB


def open_regular_file(path: Path, max_bytes: int) -> BinaryIO:
    """Return a file, open to be read from its first byte.

    Args:
        path: the file; links are followed.
        max_bytes: refuse larger files.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be opened.
        InputError: it is a pipe, a device or a folder, or larger.
    """
    # Opened without waiting: a pipe would wait for somebody to write into it.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: this is no regular file.")
        require_bytes(status.st_size, max_bytes, str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Return what a file holds.

    Args:
        path: the file; links are followed.
        max_bytes: refuse larger files.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        InputError: it is a pipe, a device or a folder, or larger.
    """
    with open_regular_file(path, max_bytes) as file:
        data = file.read(max_bytes + 1)
    require_bytes(len(data), max_bytes, str(path))
    return data


def read_text_file(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    r"""Return the text in a UTF-8 file, with or without a byte order mark; lines end with ``\n`` alone.

    Args:
        path: the file.
        max_bytes: refuse larger files.

    Raises:
        InputError: there is no such file, it cannot be read, is larger, or holds something else.
    """
    try:
        text = read_regular_file(path, max_bytes).decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def require_bytes(num_bytes: int, max_bytes: int, what: str) -> None:
    """Refuse what is too large.

    Args:
        num_bytes: size, there or claimed.
        max_bytes: largest size that is taken.
        what: the file or part of it, for the message.

    Raises:
        InputError: it is larger.
    """
    if num_bytes > max_bytes:
        raise InputError(f"{what} has {num_bytes / MIB:.0f} MiB; more than {max_bytes / MIB:.0f} MiB are refused.")
