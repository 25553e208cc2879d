"""Try the claims of the paper on a small scale: ``python -m research.paper_in_miniature``.

Trains multi-step estimators of depth and normals on rendered halls from the tiny base, evaluates them with leading and
trailing timesteps, fine-tunes them and others end to end, and writes tables, figures and a verdict on every claim.
Everything is kept in the work folder: a command that was killed goes on, and commands that share the folder share the
work. One per processor core is fastest, for the networks are small:

    python -m research.paper_in_miniature & python -m research.paper_in_miniature
"""

import argparse
import logging
from pathlib import Path

import torch

from geometry.command_line.messages import leave
from lightning_modules.command_line.console import input_error_behind, quieten
from research.paper_in_miniature.miniature import make_miniature
from research.paper_in_miniature.settings import FULL, QUICK


def main(arguments: list[str] | None = None) -> None:
    """Run what is not in the work folder yet, then write the results.

    Args:
        arguments: the command line as a list; None is that of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m research.paper_in_miniature",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--work", type=Path, default=Path("runs/paper_in_miniature"), help="folder of all results")
    parser.add_argument("--quick", action="store_true", help="see in minutes that everything works")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of this process (default: 1)")
    options = parser.parse_args(arguments)
    quieten()
    torch.set_num_threads(options.threads)
    trainers = logging.getLogger("lightning.pytorch")
    level = trainers.level
    trainers.setLevel(logging.WARNING)  # what each of a hundred trainers would say
    try:
        make_miniature(QUICK if options.quick else FULL, options.work / ("quick" if options.quick else "full"))
    except Exception as error:
        mistake = input_error_behind(error)
        if mistake is None:
            raise
        leave(mistake)
    finally:
        trainers.setLevel(level)


if __name__ == "__main__":
    main()
