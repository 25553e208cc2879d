"""The command ``onestep synthesize hypersim|virtual_kitti``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from geometry.command_line import Command, Group, Option
from synthetic_scenes import SyntheticHypersim, SyntheticVirtualKitti


@dataclass(frozen=True)
class Rendering:
    """Rendering.

    Attributes:
        output: Folder to write into; made if it is missing.
        frames: Number of images.
        workers: Processes.
    """

    output: Annotated[Path, Option(also=("out",))]
    frames: int
    workers: int = 1

    def write(self, scenes: SyntheticHypersim | SyntheticVirtualKitti, name: str) -> None:
        """Render the frames and say how to go on.

        Args:
            scenes: what is rendered.
            name: the command that prepares it.
        """
        scenes.write(self.output, self.frames, self.workers)
        print(f"{self.frames} frames in {self.output}. To make shards of them:")
        print(f"onestep prepare {name} --raw {self.output} --output SHARDS")


def hypersim(rendering: Rendering, scenes: SyntheticHypersim) -> None:
    """Render furnished rooms with exact depth and normals as Hypersim's HDF5 frames. Same seed, same files.

    Args:
        rendering: Rendering.
        scenes: Rooms.
    """
    rendering.write(scenes, "hypersim")


def virtual_kitti(rendering: Rendering, scenes: SyntheticVirtualKitti) -> None:
    """Render streets with exact depth as Virtual KITTI 2's JPEG and PNG frames. Same seed, same files.

    Args:
        rendering: Rendering.
        scenes: Streets.
    """
    rendering.write(scenes, "virtual_kitti")


_KEPT = "Frames that were finished are kept. Remove the folder, or give another one, to render all anew."
GROUP = Group(
    "Render scenes with exact depth and normals in a data set's own raw layout.",
    lambda: {"hypersim": Command(hypersim, kept=_KEPT), "virtual_kitti": Command(virtual_kitti, kept=_KEPT)},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    Args:
        arguments: words after the program's name; those of this process by default.
    """
    return GROUP.main(sys.argv[1:] if arguments is None else arguments, "onestep synthesize")
