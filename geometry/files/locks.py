"""One process at a time in a folder: a lock that names its holder and ends with it, however it ends."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from geometry.errors import InputError
from geometry.files.json_text import read_json_file

LOCK_NAME = ".lock"
_NOTE_SUFFIX = ".holder"


@contextmanager
def sole_use(folder: Path, name: str = LOCK_NAME, is_patient: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder while a block runs.

    The operating system holds the lock (``flock``) and lifts it when the process ends, be it killed. Where a network
    disk knows no such locks, a marker with the process and host takes its place.

    Args:
        folder: the folder; made if it is missing.
        name: name of the lock file; different names do not exclude each other.
        is_patient: wait for the other process in place of refusing.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written to.
    """
    file = folder / name
    note = file.with_name(f"{name}{_NOTE_SUFFIX}")
    lock = FileLock(file)
    was_there = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, file, note, is_patient)
        note.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n", encoding="utf-8")
    except OSError as error:
        lock.release(force=True)
        raise InputError(f"{folder} cannot be written to ({error.strerror or error}).") from error
    try:
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
            file.unlink(missing_ok=True)  # a process that has it open already looks again
        lock.release()
        if not was_there:
            with suppress(OSError):  # something was written into it
                folder.rmdir()


def _acquire(lock: FileLock, file: Path, note: Path, is_patient: bool) -> None:
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        if not is_patient:
            raise InputError(
                f"{file.parent} is in use by {_holder(note)}: wait for its end or stop it. (Should it be gone and this "
                f"still be said, remove {file}.)"
            ) from error
        print(f"waiting for {_holder(note)}, which uses {file.parent}", file=sys.stderr)
        lock.acquire()


def _holder(note: Path) -> str:
    """Return how to find the process that holds a lock."""
    try:
        found = read_json_file(note, 1000)
        return f"process {int(found['pid'])} on {ascii(str(found['host']))[1:-1]}"
    except (ValueError, KeyError, TypeError):  # it is being written, or of another program
        return "another process"
