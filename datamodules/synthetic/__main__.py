"""The command ``onestep synthesize hypersim|virtual_kitti``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from datamodules.synthetic import SyntheticHypersim, SyntheticVirtualKitti
from datamodules.synthetic.rooms import STYLES
from datamodules.synthetic.streets import WEATHER
from geometry.command_line import Command, Group, Option, say_new_spelling

Style = Annotated[str, Option(choices=tuple(STYLES))]
Conditions = Annotated[tuple[str, ...], Option(choices=tuple(WEATHER))]
Size = Annotated[tuple[int, int] | None, Option(metavar=("H", "W"))]
_ROOMS, _STREETS = SyntheticHypersim(), SyntheticVirtualKitti()


@dataclass(frozen=True)
class Rendering:
    """Rendering.

    Attributes:
        output: Folder to write into; made if it is missing.
        frames: Number of images.
        seed: Another seed, other scenes.
        size: Height and width of the frames, by default those of the data set.
        antialias: Colour rays per pixel in each direction, by default what suits the data set.
        workers: Processes.
    """

    output: Annotated[Path, Option(also=("out",))]
    frames: int
    seed: int = 0
    size: Size = None
    antialias: int | None = None
    workers: int = 1

    def shared(self, defaults: SyntheticHypersim | SyntheticVirtualKitti) -> dict[str, Any]:
        """Return the arguments of either data set.

        Args:
            defaults: for what is not given.
        """
        antialias = defaults.antialias if self.antialias is None else self.antialias
        return {"size": self.size or defaults.size, "antialias": antialias, "seed": self.seed}

    def write(self, data_set: SyntheticHypersim | SyntheticVirtualKitti, name: str) -> None:
        """Render the frames and say how to go on.

        Args:
            data_set: what is rendered.
            name: the command that prepares it.
        """
        data_set.write(self.output, self.frames, self.workers)
        print(f"{self.frames} frames in {self.output}. To make shards of them:")
        print(f"onestep prepare {name} --raw {self.output} --output SHARDS")


def hypersim(
    rendering: Rendering,
    frames_per_scene: int = 2,
    val_fraction: float = 0.1,
    tilt_shift_fraction: float = 0.1,
    style: Style = "rooms",
) -> None:
    """Render furnished rooms with exact depth and normals as Hypersim's HDF5 frames. Same seed, same files.

    Args:
        rendering: Rendering.
        frames_per_scene: Images taken of each room.
        val_fraction: Share of the rooms held out for validation.
        tilt_shift_fraction: Share of the rooms taken with a tilted sensor.
        style: All kinds of rooms, or long halls with a flash.
    """
    data_set = SyntheticHypersim(
        frames_per_scene=frames_per_scene,
        val_fraction=val_fraction,
        tilt_shift_fraction=tilt_shift_fraction,
        style=STYLES[style],
        **rendering.shared(_ROOMS),
    )
    rendering.write(data_set, "hypersim")


def virtual_kitti(
    rendering: Rendering,
    conditions: Conditions = _STREETS.conditions,
    cameras: tuple[Literal[0, 1], ...] = (0,),
) -> None:
    """Render streets with exact depth as Virtual KITTI 2's JPEG and PNG frames. Same seed, same files.

    Args:
        rendering: Rendering.
        conditions: Conditions to render.
        cameras: Cameras.
    """
    rendering.write(
        SyntheticVirtualKitti(conditions=conditions, cameras=cameras, **rendering.shared(_STREETS)), "virtual_kitti"
    )


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


if __name__ == "__main__":
    say_new_spelling("python -m datamodules.synthetic", "onestep synthesize")
    sys.exit(main())
