"""Messages beside progress bars: each begins on a line of its own."""

import logging
import sys

from tqdm import tqdm

_OPEN: set[int] = set()


def note_open(bar: tqdm) -> None:
    """Note that a bar is on the screen."""
    _OPEN.add(id(bar))


def note_closed(bar: tqdm) -> None:
    """Note that a bar is closed."""
    _OPEN.discard(id(bar))


def is_bar_open() -> bool:
    """Return whether the last line of the terminal is that of a bar."""
    return bool(_OPEN)


class AboveBars(logging.StreamHandler):
    """Writes log messages above the bars, which are drawn again below them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message.

        Args:
            record: the message.
        """
        tqdm.write(self.format(record), file=sys.stderr)


def log_above_bars(*names: str) -> None:
    """Let loggers that write to the terminal write above the bars.

    Args:
        *names: names of the loggers.
    """
    for name in names:
        logger = logging.getLogger(name)
        for handler in [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]:
            above = AboveBars()
            above.setFormatter(handler.formatter)
            logger.removeHandler(handler)
            logger.addHandler(above)
