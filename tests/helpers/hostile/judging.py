"""Runs one case in a process of its own, within limits, and says whether it was met well.

Right is an ``InputError``, or a result that makes sense, within 2 seconds of processor time and 500 MB beyond what the
process had. Wrong is any other exception, a crash, a hang, growth, another program that is started, a connection, or a
file outside the case's folder that is opened for writing.
"""

import faulthandler
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geometry.errors import InputError
from tests.helpers.hostile.formats import Format

MAX_SECONDS = 2.0
MAX_GROWTH_MB = 500.0
# Where growth and loops end for good; beyond what is right, so that it is seen how much they take.
_END_SECONDS = 10
_END_WALL_SECONDS = 60.0
# A process that works, or that others keep from working, does not hang; its processor time is limited, too.
_END_WALL_SECONDS_AT_WORK = 900.0
_END_BYTES = 4 << 30
_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "socket.connect")


@dataclass(frozen=True)
class Verdict:
    """How a case ended.

    Attributes:
        end: "refused", "accepted", or what was wrong.
        told: the message, or a traceback.
        seconds: of processor time.
        growth_mb: memory beyond what the process had, at its highest.
    """

    end: str
    told: str = ""
    seconds: float = 0.0
    growth_mb: float = 0.0

    @property
    def is_right(self) -> bool:
        """Whether the case was refused or made sense, within the limits."""
        return self.end in ("refused", "accepted")


def judge(kind: Format, data: bytes, wall_seconds: float = _END_WALL_SECONDS) -> Verdict:
    """Let a fork of this process read a file, and judge how it ends.

    Args:
        kind: the format.
        data: the file.
        wall_seconds: after so long without a word or any work, it hangs.
    """
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        receive, send = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receive)
            _run(kind, data, Path(folder), send)
        os.close(send)
        try:
            answer = _await(receive, child, wall_seconds)
            _, status, usage = os.wait4(child, 0)
        finally:
            os.close(receive)
        if os.waitstatus_to_exitcode(status) != 0 or not answer:
            stack = (Path(folder) / ".stack").read_text() if (Path(folder) / ".stack").exists() else ""
            return Verdict(_describe(status), stack, usage.ru_utime + usage.ru_stime, 0.0)
    return _within_limits(Verdict(**json.loads(answer)))


def _within_limits(verdict: Verdict) -> Verdict:
    if verdict.is_right and verdict.seconds > MAX_SECONDS:
        return Verdict("slow", f"({verdict.end}) {verdict.told}", verdict.seconds, verdict.growth_mb)
    if verdict.is_right and verdict.growth_mb > MAX_GROWTH_MB:
        return Verdict("growth", f"({verdict.end}) {verdict.told}", verdict.seconds, verdict.growth_mb)
    return verdict


def _describe(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "hang"
    return f"crash: {signal.Signals(-code).name}" if code < 0 else f"exit: {code}"


def _await(receive: int, child: int, wall_seconds: float) -> bytes:
    """Return what the child says before it ends; kill it when it neither says nor does anything for long."""
    told, worked, give_up_s = b"", "", time.monotonic() + _END_WALL_SECONDS_AT_WORK
    while True:
        if select.select([receive], [], [], wall_seconds)[0]:
            part = os.read(receive, 1 << 16)
            if not part:
                return told
            told += part
            continue
        state, work = _state_of(child)
        if time.monotonic() > give_up_s or (state != "R" and work == worked):
            os.kill(child, signal.SIGKILL)
            return told
        worked = work


def _state_of(process: int) -> tuple[str, str]:
    """Return R for a process that could run, S for one that sleeps, and so on; and how long it has worked, in ticks."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return fields[0], f"{fields[11]} {fields[12]}"


def _run(kind: Format, data: bytes, folder: Path, send: int) -> None:
    """Read the file, send the verdict, and end this process."""
    stack = open(folder / ".stack", "w")
    faulthandler.enable(stack)
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    sys.stdout = sys.stderr = open(os.devnull, "w")
    own_folder, deeds = folder / "case", list[str]()
    own_folder.mkdir()
    _limit()
    before, begun = _peak_mb(), _seconds()
    sys.addaudithook(lambda event, arguments: _watch(event, arguments, str(folder), deeds))
    end, told = _read(kind, own_folder, data)
    if deeds:
        end, told = f"deed: {deeds[0]}", told
    verdict = {"end": end, "told": told[-4000:], "seconds": _seconds() - begun, "growth_mb": _peak_mb() - before}
    os.write(send, json.dumps(verdict).encode())
    os._exit(0)


def _read(kind: Format, folder: Path, data: bytes) -> tuple[str, str]:
    try:
        kind.read(folder, data)
    except InputError as error:
        return "refused", str(error)
    except SystemExit as error:
        return ("refused", "") if error.code == 2 else (f"exit: {error.code}", traceback.format_exc())
    except BaseException as error:
        return f"traceback: {type(error).__name__}", traceback.format_exc()
    return "accepted", ""


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (_END_SECONDS + int(_seconds()), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    address_space = 1024 * int(_status("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (address_space + _END_BYTES, resource.RLIM_INFINITY))


def _watch(event: str, arguments: tuple[Any, ...], folder: str, deeds: list[str]) -> None:
    """Note what no file may bring about."""
    if event in _FORBIDDEN:
        deeds.append(f"{event} {str(arguments)[:100]}")
    elif event == "open" and isinstance(arguments[0], str) and arguments[1] in ("w", "a", "x", "wb", "ab", "xb", "r+b"):
        if not os.path.realpath(arguments[0]).startswith(
            (os.path.realpath(folder), os.path.realpath(tempfile.gettempdir()))
        ):
            deeds.append(f"open {arguments[0]} {arguments[1]}")


def _seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_mb() -> float:
    return int(_status("VmHWM")) / 1024


def _status(name: str) -> str:
    with open("/proc/self/status") as file:
        return next(line.split()[1] for line in file if line.startswith(f"{name}:"))
