"""Disks that are full, read-only or broken: told from bugs, whichever library ran into them."""

import errno
import os
import re

_OF_DISKS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)
_ERRORS = (*_OF_DISKS, errno.EACCES, errno.EPERM)
# Libraries in other languages (safetensors, PyTorch's zip writer) give the number or the text alone.
_NUMBER = re.compile(r"os error (\d+)")
_WRITER = re.compile(r"PytorchStreamWriter failed writing|file write failed|iostream error")


def storage_problem(error: BaseException) -> str | None:
    """Return in a few words what is wrong with a disk if that is what an exception stands for, else None.

    Args:
        error: what was raised; what it came from is looked at, too.

    Returns:
        For instance ``No space left on device: runs/depth/version_0/config.yaml``.
    """
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        if (found := _problem_of(cause)) is not None:
            return found
        seen.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def _problem_of(error: BaseException) -> str | None:
    if isinstance(error, OSError):
        if error.errno not in _ERRORS:
            return None
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or os.strerror(error.errno)}{place}"
    text = str(error)
    if (number := _NUMBER.search(text)) and int(number[1]) in _ERRORS:
        return os.strerror(int(number[1]))
    if _WRITER.search(text):
        return "a file could not be written"
    return next((words for words in map(os.strerror, _OF_DISKS[:4]) if words in text), None)


def concerns_all_files(error: OSError) -> bool:
    """Say whether an error is one of the disk, which the next file would meet as well.

    Args:
        error: what was raised when a file was written.
    """
    return error.errno in _OF_DISKS
