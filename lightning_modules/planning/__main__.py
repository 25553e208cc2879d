"""``python -m lightning_modules.planning``."""

import sys

from lightning_modules.command_line.console import input_error_behind, leave
from lightning_modules.planning.command import main

try:
    sys.exit(main())
except Exception as error:
    mistake = input_error_behind(error)
    if mistake is None:
        raise
    leave(mistake)
