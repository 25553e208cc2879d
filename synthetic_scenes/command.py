"""The command ``onestep synthesize hypersim|virtual_kitti``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from geometry.command_line import Command, Group, Option
from synthetic_scenes import SyntheticHypersim, SyntheticVirtualKitti


def synthesize(
    scenes: SyntheticHypersim | SyntheticVirtualKitti,
    output: Annotated[Path, Option(also=("out",))],
    frames: int,
    workers: int = 1,
) -> None:
    """Render frames and say how to go on.

    Args:
        scenes: Scenes.
        output: Folder to write into; made if it is missing.
        frames: Number of images.
        workers: Processes.
    """
    scenes.write(output, frames, workers)
    print(f"{frames} frames in {output}. To make shards of them:")
    print(f"onestep prepare {scenes.source} --raw {output} --output SHARDS")


def _command(kind: type[SyntheticHypersim] | type[SyntheticVirtualKitti]) -> Command:
    kept = "Frames that were finished are kept. Remove the folder, or give another one, to render all anew."
    return Command(synthesize, parts={"scenes": kind}, kept=kept, title=kind)


GROUP = Group(
    "Render scenes with exact depth and normals in a data set's own raw layout.",
    lambda: {kind.source: _command(kind) for kind in (SyntheticHypersim, SyntheticVirtualKitti)},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Args:
        arguments: words after the program's name; those of this process by default.
    """
    return GROUP.main(sys.argv[1:] if arguments is None else arguments, "onestep synthesize")
