"""Ctrl-C ends every command with status 130 and a word on what is kept; SIGTERM ends validate and test with 143."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from lightning.pytorch.cli import ArgsType
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_modules.training.preemption import handlers_restored

_KEPT = {
    "fit": "All that was saved is kept: the same command with --ckpt_path last goes on.",
    "test": "Data sets that were finished are kept: the same command scores the others.",
}


def command_of(args: ArgsType) -> str:
    """Return the name of the command that a command line gives; nothing if there is none.

    Args:
        args: the command line as a list; None is that of the process.
    """
    words = sys.argv[1:] if args is None else args
    return str(words[0]) if isinstance(words, list) and words else ""


@contextmanager
def told_when_stopped(args: ArgsType) -> Iterator[None]:
    """Let a program that is stopped say what is kept, and leave the handlers of signals as they were.

    Args:
        args: the command line as a list; None is that of the process.
    """
    command = command_of(args)
    try:
        with handlers_restored():
            yield
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)  # Lightning ends validate and test with status 0, as if they were complete
    except KeyboardInterrupt:
        _leave(command)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning has tidied up, and would end with status 1
            _leave(command)
        raise


def _leave(command: str) -> NoReturn:
    print(f"Stopped. {_KEPT.get(command, '')}".rstrip(), file=sys.stderr)
    sys.exit(130)
