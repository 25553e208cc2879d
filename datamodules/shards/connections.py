"""Single connections to remote files: HTTP, commands, and stores that fsspec opens (S3, Google Cloud, Hugging Face).

HTTP is ours: fsspec's takes 3.0 GB of memory for an answer of 3 GB that it asked 5 MB of, waits for a server that has
fallen silent (40 s here, 5 minutes at most), and throws away what came before a connection broke off. Every failure is
an ``OSError``; those that another attempt cannot mend are a ``PermanentError``.

Every connection has a ``version``: what tells this content from a later one under the same URL, with None for what is
not known. ``read`` returns up to so many bytes, none only at the end of the complete file, and raises an ``OSError`` if
the connection failed, stalled, or ended too early.
"""

import os
import re
import select
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from typing import Any

import fsspec

from geometry.errors import one_line

_SKIP_BYTES = 1 << 20
# Of stores. Every stream of a data set holds up to two.
_BLOCK_BYTES = 4 << 20
# What stores call the version of a file.
_VERSIONS = ("etag", "generation", "checksum", "oid", "size")
_SHORTER = "the file is shorter than it was: it was replaced while it was read"
_REPLACED = "the file was replaced while it was read"
# Too many requests and time-outs pass; a missing file or a refused password does not.
_TEMPORARY_STATUS = frozenset({408, 425, 429})
# How long a command may take to end after its last byte.
_EXIT_SECONDS = 60.0


class PermanentError(OSError):
    """A failure that another attempt would only repeat."""


def open_connection(url: str, offset: int, version: tuple[str | None, ...], timeout_s: float) -> "Connection":
    """Open a remote file at some byte.

    Args:
        url: ``http(s)://``, what fsspec opens (``s3://``, ``gs://``, ``hf://``, ...), or ``pipe:command``.
        offset: number of bytes to leave out.
        version: version of the content that the bytes before came from.
        timeout_s: seconds without a byte after which HTTP and commands fail; stores have limits of their own.

    Returns:
        The connection.

    Raises:
        OSError: it cannot be opened, or the content is no longer of that version.
    """
    if url.startswith(("http://", "https://")):
        return HttpConnection(url, offset, version, timeout_s)
    if not url.startswith("pipe:"):
        return StoredConnection(url, offset, version)
    connection = CommandConnection(url.removeprefix("pipe:"), timeout_s)
    _skip(connection, offset)
    return connection


def _skip(connection: "Connection", count: int) -> None:
    """Read what was read before, where one cannot start in the middle."""
    try:
        while count:
            skipped = len(connection.read(min(count, _SKIP_BYTES)))
            if not skipped:
                raise OSError("there are fewer bytes than before")
            count -= skipped
    except OSError:
        connection.close()
        raise


class HttpConnection:
    """A download, continued by a range request where the server knows those.

    Args:
        url: address of the file.
        offset: number of bytes to leave out.
        version: version of the content that the bytes before came from.
        timeout_s: seconds without a byte after which opening and reading fail.
    """

    def __init__(self, url: str, offset: int, version: tuple[str | None, ...], timeout_s: float) -> None:
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        try:
            self._response: HTTPResponse = urllib.request.urlopen(
                urllib.request.Request(url, headers=headers), timeout=timeout_s
            )
        except urllib.error.HTTPError as error:
            error.close()
            temporary = error.code >= 500 or error.code in _TEMPORARY_STATUS
            if error.code == 416:
                raise PermanentError(_SHORTER) from error
            raise (OSError if temporary else PermanentError)(f"HTTP status {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise OSError(f"no connection ({error.reason})") from error
        except (HTTPException, ValueError) as error:
            raise OSError(f"no valid answer ({error!r})") from error
        length = self._response.headers.get("Content-Length")
        self._remaining = int(length) if length and re.fullmatch("[0-9]{1,18}", length) else None
        resumed = self._response.status == 206
        self.version = self._content_version(offset if resumed else 0)
        if _differ(version, self.version):
            self.close()
            raise PermanentError(_REPLACED)
        if offset and not resumed:
            _skip(self, offset)

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        try:
            data = self._response.read1(size) if size else b""
        except HTTPException as error:
            raise OSError(f"the connection broke off ({error!r})") from error
        except TimeoutError as error:
            raise OSError("the download stalled") from error
        if self._remaining is not None:
            self._remaining -= len(data)
            if size and not data and self._remaining:
                raise OSError(f"the connection ended {self._remaining} bytes too early")
        return data

    def close(self) -> None:
        """End the download."""
        self._response.close()

    def _content_version(self, start: int) -> tuple[str | None, ...]:
        headers = self._response.headers
        total = None if self._remaining is None else str(start + self._remaining)
        return headers.get("ETag"), headers.get("Last-Modified"), total


class CommandConnection:
    """What a shell command prints.

    Args:
        command: the command.
        timeout_s: seconds without a byte after which reading fails.
    """

    version: tuple[str | None, ...] = ()

    def __init__(self, command: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # A group of its own, so that all parts of a pipeline can be ended together.
        self._process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE, bufsize=0, start_new_session=True)
        assert self._process.stdout is not None, "stdout is a pipe"
        self._stdout = self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        self._ended = False

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        if self._ended or not size:
            return b""
        if not self._poll.poll(1000 * self._timeout_s):
            raise OSError(f"the command printed nothing for {self._timeout_s:g} s")
        data = os.read(self._stdout.fileno(), size)
        if not data:
            self._check_exit()
            self._ended = True
        return data

    def close(self) -> None:
        """End the command."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._stdout.close()
        self._process.wait()

    def _check_exit(self) -> None:
        try:
            status = self._process.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise OSError("the command does not end") from error
        if status in (126, 127):
            raise PermanentError(f"the command cannot be run (status {status})")
        if status:
            raise OSError(f"the command failed with status {status}")


class StoredConnection:
    """A file in a store that fsspec opens.

    Args:
        url: address of the file.
        offset: first byte to read.
        version: version of the content that the bytes before came from.
    """

    def __init__(self, url: str, offset: int, version: tuple[str | None, ...]) -> None:
        with _as_os_errors():
            system, path = _find_store(url)
            said = {name.lower(): str(value) for name, value in system.info(path).items() if value is not None}
            self.version = tuple(said.get(name) for name in _VERSIONS)
            if _differ(version, self.version):
                raise PermanentError(_REPLACED)
            self._file = system.open(path, block_size=_BLOCK_BYTES)
            self._file.seek(offset)

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        with _as_os_errors():
            return self._file.read(size)

    def close(self) -> None:
        """Let go of the file."""
        with _as_os_errors():
            self._file.close()


Connection = HttpConnection | CommandConnection | StoredConnection


def _find_store(url: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    try:
        return fsspec.url_to_fs(url)
    except (ValueError, ImportError) as error:
        known = isinstance(error, ImportError)
        remedy = "pip install -e '.[remote]' brings S3 and Google Cloud; or name" if known else "name"
        raise PermanentError(
            f"addresses of this kind cannot be opened ({one_line(error, 100)}); {remedy} a command that prints the "
            "file, such as 'pipe:aws s3 cp s3://bucket/folder/{} -'"
        ) from error


def _differ(version: tuple[str | None, ...], now: tuple[str | None, ...]) -> bool:
    return any(old != new for old, new in zip(version, now, strict=False) if old and new)


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turn whatever the library of a store raises into an ``OSError``."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        missing = isinstance(error, FileNotFoundError)
        what = "there is no such file" if missing else "access is refused"
        raise PermanentError(f"{what} ({one_line(error, 200)})") from error
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {one_line(error, 200)}") from error
