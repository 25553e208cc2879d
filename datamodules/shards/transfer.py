"""Opens files on this machine, behind URLs and printed by commands, and keeps reading when a connection fails."""

import hashlib
import io
import logging
import random
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from datamodules.shards.connections import Connection, PermanentError, open_connection
from geometry.files.limits import MAX_BYTES_AFTER_SHARD, MIB
from geometry.files.reading import open_regular_file

CHUNK_BYTES = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transfer:
    """How patiently remote files are read.

    Attributes:
        retries: attempts after a failed one; counted anew whenever bytes have arrived.
        timeout_s: seconds without a single byte after which a connection has failed.
        backoff_s: seconds before the first retry; doubled for every further one, up to 30.
    """

    retries: int = 2
    timeout_s: float = 60.0
    backoff_s: float = 0.5

    def pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row, spread so that readers do not come all at once."""
        return min(self.backoff_s * 2.0 ** (failures - 1), 30.0) * random.Random().uniform(0.75, 1.25)


DEFAULT_TRANSFER = Transfer()


def is_remote(url: str) -> bool:
    """Return whether a place is a URL or a command, and not a path on this machine."""
    return url.startswith("pipe:") or re.match(r"[a-z0-9]+://", url) is not None


@contextmanager
def open_url(url: str, transfer: Transfer = DEFAULT_TRANSFER, sha256: str | None = None) -> Iterator[BinaryIO]:
    """Open a stream of the bytes of a local file, of a URL, or of what a command prints (``pipe:command``).

    A remote stream that breaks off or stalls is opened again and continued at the very byte where it stopped.

    Args:
        url: path, URL or ``pipe:`` command.
        transfer: how often and how long to try.
        sha256: checksum that a remote file must have when all of it was read; None checks nothing.

    Raises:
        InputError: a local file is a pipe, a device or a folder.
        OSError: the file cannot be opened; or the download or the command keeps failing, up to its last byte; or the
            checksum is another.
    """
    if not is_remote(url):
        with open_regular_file(Path(url), sys.maxsize) as file:
            yield file
        return
    with ResumingStream(url, transfer) as raw:
        stream = io.BufferedReader(raw, CHUNK_BYTES)
        yield stream
        # A command that could not print its last bytes would be taken for one that failed.
        for _ in range(0, MAX_BYTES_AFTER_SHARD, CHUNK_BYTES):
            if not stream.read(CHUNK_BYTES):
                break
        else:
            raise OSError(f"more than {MAX_BYTES_AFTER_SHARD // MIB} MiB follow the end of the archive")
        if sha256 is not None and raw.sha256 != sha256:
            raise OSError(f"it is short or was changed: its sha256 is {raw.sha256}, dataset.json says {sha256}")


class ResumingStream(io.RawIOBase):
    """The bytes of a remote file, over as many connections as it takes.

    Args:
        url: URL or ``pipe:`` command.
        transfer: how often and how long to try.
    """

    def __init__(self, url: str, transfer: Transfer) -> None:
        self._url, self._transfer = url, transfer
        self._connection: Connection | None = None
        self._version: tuple[str | None, ...] = ()
        self._offset, self._failures = 0, 0
        self._checksum = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Checksum of what was read so far, 64 hexadecimal digits."""
        return self._checksum.hexdigest()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        """Fill the buffer as far as bytes are there; 0 means that the file has ended.

        Raises:
            OSError: every attempt failed, or another would not help.
        """
        view = memoryview(buffer)
        while True:
            try:
                if self._connection is None:
                    self._connection = open_connection(self._url, self._offset, self._version, self._transfer.timeout_s)
                    self._version = self._connection.version
                data = self._connection.read(len(view))
            except PermanentError:
                raise
            except OSError as error:
                self._wait_after(error)
                continue
            view[: len(data)] = data
            self._checksum.update(data)
            self._offset += len(data)
            self._failures = 0
            return len(data)

    def close(self) -> None:
        """End the connection."""
        self._disconnect()
        super().close()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(OSError):  # a command that is cut off may well complain
            if connection is not None:
                connection.close()

    def _wait_after(self, error: OSError) -> None:
        """Wait before another attempt, or give up.

        Raises:
            OSError: there have been enough attempts.
        """
        self._disconnect()
        self._failures += 1
        if self._failures > self._transfer.retries:
            raise OSError(f"{error} (at byte {self._offset}, after {self._failures} attempts)") from error
        pause_s = self._transfer.pause_s(self._failures)
        attempt = f"attempt {self._failures + 1} of {self._transfer.retries + 1} in {pause_s:.1f} s"
        _log.warning("%s: %s at byte %d; %s.", self._url, error, self._offset, attempt)
        time.sleep(pause_s)
