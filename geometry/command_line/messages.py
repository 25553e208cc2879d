"""What a person at the terminal reads of a parser: plain help, and errors of one line."""

import os
import re
import sys
from typing import NoReturn

from geometry.errors import InputError, is_lack_of_memory, one_line, printable
from geometry.files.storage import storage_problem

_MAX_LETTERS = 1500
# Lines of jsonargparse's errors that repeat what was given, or what else would have been accepted.
_NOISE = re.compile(
    r"\s*(- )?(Does not validate against any of the Union subtypes|Subtypes: |Errors:|Given value( type)?: |"
    r"Expected a <class 'NoneType'>|Expected a path but .* either not accessible or invalid|"
    r"Subclass types expect one of:|a class path \(str\)|a dict with)"
)
_REWORDED = (
    (r"Parser key \"([^\"]*)\"(?: element \d+)?:", r"\1:"),
    (r"the following arguments are required: (.*[^.])\.?$", r"\1: needed, and not given"),
    (r"Key \"([^\"]*)\" is required but not included in config object or its value is None\.?", r"--\1 is needed."),
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


def mistake_behind(error: BaseException) -> str | None:
    """Return the message of the user's mistake that an exception stands for, or None if it is a bug.

    Convention:
        A mistake is an ``InputError``, a disk that is full or read-only, a working folder that is gone, or a lack of
        memory. jsonargparse
        raises a ``ValueError`` from an ``InputError``, and PyTorch wraps a traceback around it where a loader's process
        raised it.

    Args:
        error: what was raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause).rsplit("InputError: ", 1)[-1].strip()
        if is_lack_of_memory(cause):
            return f"memory ran out ({one_line(cause, 200)}). What was finished before is intact."
        cause = cause.__cause__
    if _working_folder_is_gone():
        return "the working folder was removed meanwhile. Change to another one, and give the command again."
    problem = storage_problem(error)
    return f"a file cannot be read or written ({problem}). What was finished before is intact." if problem else None


def _working_folder_is_gone() -> bool:
    try:
        os.getcwd()
    except OSError:
        return True
    return False


def say_error(message: str) -> None:
    """Print ``error: message`` as one line that is not too long.

    Args:
        message: what is wrong and what to do.
    """
    if len(message) > _MAX_LETTERS:  # what was given is repeated in most messages, and may have any length
        message = f"{message[: _MAX_LETTERS - 300]} [...] {message[-290:]}"
    print(f"error: {printable(message)}", file=sys.stderr)


def leave(message: str) -> NoReturn:
    """Print ``error: message`` as one line and end the process with status 2.

    Args:
        message: what is wrong and what to do.
    """
    say_error(message)
    sys.exit(2)
