"""Results on disk: made once, complete or absent, and named by all that they depend on."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Busy(Exception):
    """Another process is making this result."""


@dataclass(frozen=True)
class Job:
    """Something to be made.

    Attributes:
        name: what the person at the terminal reads.
        make: makes it, or does nothing if it is there.
    """

    name: str
    make: Callable[[], object]


class Stages:
    """A folder of results, each under its name and a digest of what it depends on.

    A result is written under a temporary name and renamed, so that a killed command finds complete ones alone. Several
    processes may share the folder: a lock that dies with its process keeps them from making the same thing twice.

    Args:
        folder: where results are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wait = True
        folder.mkdir(parents=True, exist_ok=True)

    def file(self, name: str, depends_on: dict[str, Any], suffix: str, write: Callable[[Path], object]) -> Path:
        """Return a result's file, made if it is not there.

        Args:
            name: what it is, for people; part of the file name.
            depends_on: everything that the result depends on, as JSON; names of other results stand for those.
            suffix: end of the file name.
            write: writes the result to the path that it is given.

        Raises:
            Busy: another process is making it, and ``wait`` is False.
        """
        digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]
        target = self.folder / f"{name.replace(' ', '-')}-{digest}{suffix}"
        if not target.exists():
            with self._locked(target):
                if not target.exists():
                    unfinished = target.with_name(f"unfinished-{target.name}")
                    write(unfinished)
                    os.replace(unfinished, target)
        return target

    def json(self, name: str, depends_on: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a result that is JSON, computed if it is not there.

        Args:
            name: what it is, for people; part of the file name.
            depends_on: everything that the result depends on, as JSON.
            compute: computes it.

        Raises:
            Busy: another process is computing it, and ``wait`` is False.
        """

        def write(path: Path) -> None:
            path.write_text(json.dumps({"depends_on": depends_on, "result": compute()}, indent=1))

        return json.loads(self.file(name, depends_on, ".json", write).read_text())["result"]

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all jobs; leave those of other processes for later, and wait for them when nothing else is left.

        Args:
            jobs: what is to be done, in order; a job makes what it needs.
        """
        pending, self.wait = list(enumerate(jobs, start=1)), False
        while pending:
            busy = []
            for number, job in pending:
                print(f"[{number}/{len(jobs)}] {job.name}", flush=True)
                try:
                    job.make()
                except Busy:
                    print("  left to the process that is at it", flush=True)
                    busy.append((number, job))
                self.wait = False
            # Where nothing could be done, wait for the first of them.
            self.wait = len(busy) == len(pending)
            pending = busy
        self.wait = True

    @contextmanager
    def _locked(self, target: Path) -> Iterator[None]:
        locks = self.folder / "locks"
        locks.mkdir(exist_ok=True)
        with open(locks / target.name, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if self.wait else fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise Busy(target.name) from error
            yield
