"""The one exception for mistakes that a user can mend, and how messages with foreign names are printed."""

import re
import unicodedata
from collections.abc import Collection


class InputError(ValueError):
    """Something given from outside (a file, an option, a data set) cannot be used.

    The message names the file, key or option and says what to do. The commands print it
    without a traceback and exit with status 2; every other exception is a bug and keeps its traceback.
    """


def check_choice(what: str, given: object, choices: Collection[str]) -> None:
    """Check that something is one of the names that there are.

    Args:
        what: what it is, for the message.
        given: what was given.
        choices: the names.

    Raises:
        InputError: it is none of them.
    """
    if given not in choices:
        raise InputError(f"there is no {what} {given!r}; choose one of {', '.join(choices)}.")


def printable(text: object) -> str:
    r"""Return a text that a terminal shows as one line and does not obey.

    Names of files may hold anything: codes that clear the screen, ends of lines, marks that turn the direction of
    writing, bytes that are no text. All of these are written as escapes such as ``\x1b``.

    Args:
        text: a message with names in it.
    """
    return "".join(_escaped(letter) if unicodedata.category(letter) in _UNSAFE else letter for letter in str(text))


def one_line(text: object, longest: int | None = None) -> str:
    """Return a text as one line that is not too long.

    Args:
        text: for instance the error of a library, whose message may have many lines.
        longest: number of characters to keep, cut between words; None keeps all.
    """
    line = " ".join(str(text).split())
    if longest is None or len(line) <= longest:
        return line
    return line[:longest].rsplit(" ", 1)[0] + " ..."


def is_lack_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, that of a GPU or that of the machine.

    Args:
        error: Python's, PyTorch's, or that of a library of CUDA by way of PyTorch.
    """
    words = "out of memory|can't allocate memory|not enough memory|STATUS_ALLOC_FAILED"
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and re.search(words, str(error)) is not None
    )


# Controls, formats (direction of writing, zero width), halves of pairs, separators of lines and of paragraphs.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", errors="surrogatepass").decode("ascii")
