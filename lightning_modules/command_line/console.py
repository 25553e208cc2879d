"""What a person at the terminal gets to read: plain help, errors in one message, no noise."""

import logging
import re
import sys
import threading
import warnings
from pathlib import Path
from typing import NoReturn

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from geometry.errors import InputError, one_line, printable
from geometry.files.storage import storage_problem
from lightning_modules.command_line.bars import is_bar_open, log_above_bars

_NO_NEWS = (
    "💡 Tip",
    "TPU available",
    "\nDetected KeyboardInterrupt",
    "`Trainer.fit` stopped: `max_",
)
_OWN_CODE = [Path(__file__).parents[2] / name for name in ("datamodules", "geometry", "lightning_modules")]
_MAX_LETTERS = 1500
# Lines of jsonargparse's errors that repeat what was given, or what else would have been accepted.
_NOISE = re.compile(
    r"\s*(- )?(Does not validate against any of the Union subtypes|Subtypes: |Errors:|Given value( type)?: |"
    r"Expected a <class 'NoneType'>|Expected a path but .* either not accessible or invalid|"
    r"Subclass types expect one of:|a class path \(str\)|a dict with)"
)
_REWORDED = (
    (r"Parser key \"([^\"]*)\":", r"\1:"),
    (r"Problem with given class_path '([^']*)':", r"\1:"),
    (r"Expected a dot import path string: (\S+)", r"there is no class \1"),
    (r"Expected a typing\.Literal(\[[^\]]*\])", r"expected one of \1"),
    (r"Expected a <class '([^']*)'>", r"expected \1"),
    (r"\. Got value: ", ", got "),
    (r"Option '([^']*)' is not accepted", r"there is no option \1"),
    (r'"<unicode string>"', "the configuration"),
    (
        r"KeyError raised while resolving interpolation: .*Environment variable '([^']*)' not found\W+full_key: (\S+)"
        r"( object_type=\w+)?",
        r"\2 needs the environment variable \1, which is not set",
    ),
    (
        r"Type typing\.Callable.* expects a function or a callable class: No module named '([^']*)', got (\S+)",
        r"\2 needs the package \1, which is not installed: pip install \1",
    ),
)
_MARKUP = (
    (r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1"),  # :class:`~a.b.C` -> C
    (r"``?([^`]+)``?", r"\1"),
    (r"\s*Default: [^\s].*?\.(?=\s|$)", ""),  # the parser states the default that really holds
)


def plain_help(text: str) -> str:
    """Return a help text without the markup of docstrings and without the defaults that they repeat.

    Args:
        text: help of an option.
    """
    for pattern, replacement in _MARKUP:
        text = re.sub(pattern, replacement, text, flags=re.DOTALL)
    return text


def readable_error(message: str) -> str:
    """Return a parser's error as one line that says where the mistake is, and what it is.

    Args:
        message: the parser's message, of one line or many.
    """
    lines = [
        line.strip().removeprefix("- ") for line in message.splitlines() if line.strip() and not _NOISE.match(line)
    ]
    text = " ".join(lines) or message
    for pattern, replacement in _REWORDED:
        text = re.sub(pattern, replacement, text)
    return text


def input_error_behind(error: BaseException) -> str | None:
    """Return the message of the user's mistake that an exception stands for, or None if it is a bug.

    Convention:
        A mistake is an ``InputError``, or Lightning's ``MisconfigurationException``, or a disk that is full or
        read-only. jsonargparse raises a
        ``ValueError`` from it, and PyTorch wraps a traceback around it where a loader's process raised it.

    Args:
        error: what was raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MisconfigurationException):
            return _with_remedy(one_line(cause))
        if isinstance(cause, InputError):
            return str(cause).rsplit("InputError: ", 1)[-1].strip()
        cause = cause.__cause__
    problem = storage_problem(error)
    return f"a file cannot be read or written ({problem}). What was finished before is intact." if problem else None


def _with_remedy(message: str) -> str:
    """Return Lightning's complaint with what to do, where it does not say."""
    if "No supported gpu backend found" in message:
        return (
            "there is no GPU that PyTorch can use here (No supported gpu backend found). Set --trainer.accelerator "
            "auto or cpu; or, if the machine has one, install the driver and a PyTorch that was built for it."
        )
    return message


def leave(message: str) -> NoReturn:
    """Print ``error: message`` as one line and end the process with status 2.

    Args:
        message: what is wrong and what to do.
    """
    if len(message) > _MAX_LETTERS:  # what was given is repeated in most messages, and may have any length
        message = f"{message[: _MAX_LETTERS - 300]} [...] {message[-290:]}"
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(2)


def quieten() -> None:
    """Hide advertisements and warnings that concern nobody who uses the project."""
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.addFilter(_is_news)
    threading.excepthook = _report_from_thread
    warnings.formatwarning = _plain_warning  # type: ignore[assignment]
    log_above_bars("lightning.pytorch", "lightning.fabric")
    for message, category in (
        (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
        (r"Found \d+ module\(s\) in eval mode at the start of training", UserWarning),
        (r"The number of training batches .* is smaller than the logging interval", UserWarning),
        (r"Total length of `list` across ranks is zero", UserWarning),  # a test whose data sets are all scored
        (r"Checkpoint directory .* exists and is not empty", UserWarning),
        (r"It is recommended to use `self.log\('val/.*sync_dist=True", UserWarning),
        (r"The '\w+' does not have many workers", UserWarning),  # our loaders say what theirs cost
        (r"Be aware that when using `ckpt_path`", UserWarning),
        (r"The `local_dir_use_symlinks` argument is deprecated", UserWarning),
    ):
        warnings.filterwarnings("ignore", message=message, category=category)


def _report_from_thread(arguments: threading.ExceptHookArgs) -> None:
    """Be silent on a disk that a writer of curves finds full: the main thread hears of it, too, and says it once."""
    if arguments.exc_value is None or storage_problem(arguments.exc_value) is None:
        threading.__excepthook__(arguments)


def _plain_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> str:
    """Return a warning as one line; those of this project without the place in the code, which helps nobody."""
    is_own = any(Path(filename).is_relative_to(folder) for folder in _OWN_CODE)
    start = "\n" if is_bar_open() else ""
    return start + (f"warning: {message}\n" if is_own else f"{filename}:{lineno}: {category.__name__}: {message}\n")


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NO_NEWS)
