"""Being told to stop: signals set stop flags, and all ranks agree on the step after which they stop."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist

# What sysexits.h calls "temporary failure, try again": a batch script can tell it from a crash.
EXIT_CODE = 75
# SIGHUP: a terminal that was closed. SIGINT: Ctrl-C.
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)
NO_STEP = "while no step was under way: all that was trained is saved. The same command with --ckpt_path last goes on."
AT_ONCE = "at once: what was trained since the last checkpoint is lost. The same command with --ckpt_path last goes on."
PATIENCE = "Ctrl-C: the step is being finished and saved. Once more leaves at once, without saving."


class Preempted(SystemExit):
    """The run was told to stop and has saved everything; starting it again goes on where it stopped."""


class StopSignals:
    """Notes the signals while steps are taken; at any other time leaves at once, for all is saved then.

    A second Ctrl-C leaves at once even amid a step. A signal that is ignored when the process starts stays ignored:
    ``nohup`` means it, and so does a shell that starts a job in the background.

    Leaving at once is no exception that unwinds, for a signal comes anywhere, also amid code that takes any exception
    for an error of its own. It is as abrupt as SIGKILL, which a run survives, but has a status to requeue on.

    Python lets only the main thread take signals; in other threads nothing happens here.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._pass_on: Callable[[int], None] | None = None
        self._process = 0

    def leave_at_once(self, pass_on: Callable[[int], None] | None = None) -> None:
        """Let a signal end the process with ``exit_code``.

        Args:
            pass_on: sends the signal to ranks that this process has started; by default what it was before.
        """
        self._pass_on = pass_on or self._pass_on
        self._take(self._leave)

    def note(self) -> None:
        """Let a signal change nothing but ``received``."""
        self.received = None
        self._take(self._note)

    def give_back(self) -> None:
        """Let whoever had the signals before have them again."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _take(self, handler: Callable[[int, FrameType | None], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before.setdefault(number, signal.signal(number, handler))

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a helper that was forked works on for this process, and ends with it
        is_second = self.received == number == signal.SIGINT
        self.received = signal.Signals(number)
        if is_second:
            self._end(number, AT_ONCE)
        if number == signal.SIGINT and exit_code():
            _tell(PATIENCE)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            os._exit(128 + number)  # a helper that was forked, told together with the run
        self._end(number, NO_STEP)

    def _end(self, number: int, words: str) -> NoReturn:
        if self._pass_on is not None:
            self._pass_on(number)
        with suppress(Exception):  # the signal may have come amid printing
            sys.stdout.flush()
            sys.stderr.flush()
        if exit_code():
            _tell(f"stopped by {signal.Signals(number).name} {words}")
        os._exit(exit_code(number))


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Leave the signals' handlers as they were before a block, however it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class RankAgreement:
    """Tells every rank the stop flags of all, one call later where there are several ranks.

    The flags travel between the hosts, not between their devices, while the next step is computed: nobody waits.
    """

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None
        self._travelling: tuple[dist.Work, torch.Tensor] | None = None

    def open(self, timeout: timedelta = timedelta(minutes=30)) -> None:
        """Get ready; all ranks call this at the same time.

        Args:
            timeout: how long a rank waits for the others before it gives up.
        """
        self._group, self._travelling = None, None
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            self._group = dist.new_group(backend="gloo", timeout=timeout)

    def exchange(self, *flags: bool) -> tuple[bool, ...]:
        """Return which flags any rank has set: of this call for one rank, of the call before for several.

        Args:
            *flags: the stop flags of this rank; the same number on every rank and in every call.
        """
        if self._group is None:
            return flags
        result = tuple(False for _ in flags)
        if self._travelling is not None:
            work, found = self._travelling
            work.wait()
            result = tuple(bool(flag) for flag in found.tolist())
        sent = torch.tensor(flags, dtype=torch.int32)
        work = dist.all_reduce(sent, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._travelling = (work, sent)
        return result

    def close(self) -> None:
        """Let the last exchange end, so that no rank leaves while another one sends."""
        if self._travelling is not None:
            self._travelling[0].wait()
            self._travelling = None


def _tell(words: str) -> None:
    """Print from within a handler of signals, where the terminal may be gone."""
    with suppress(OSError):
        os.write(2, f"\n{words}\n".encode())


def exit_code(number: int | None = None) -> int:
    """Return the status that this process ends with when it was told to stop: 130 after Ctrl-C, else 75.

    Lightning starts the ranks of a machine as children of the first one and kills that if a child fails, so the
    others end with 0.

    Args:
        number: the signal, None for one that another rank got.
    """
    status = 128 + signal.SIGINT if number == signal.SIGINT else EXIT_CODE
    return status if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0" else 0
