"""A parser of command lines whose errors are one line."""

import argparse
import sys
from typing import NoReturn

from geometry.errors import printable


class OneLineParser(argparse.ArgumentParser):
    """Prints ``error: ...`` in place of the usage of all options; its subcommands do the same."""

    def error(self, message: str) -> NoReturn:
        """Print the message and leave with status 2.

        Args:
            message: what is wrong.
        """
        print(f"error: {printable(message)} (options: {self.prog} --help)", file=sys.stderr)
        sys.exit(2)
