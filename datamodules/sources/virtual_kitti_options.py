"""Virtual KITTI 2 as a command of ``prepare``."""

from pathlib import Path
from typing import Annotated, Literal

from datamodules.sources.registry import raw_dataset
from datamodules.sources.virtual_kitti import CONDITIONS, PRESETS, SCENES, VirtualKitti
from geometry.command_line import Option

Scenes = Annotated[tuple[str, ...] | None, Option(nargs="*", metavar="SCENE", choices=SCENES)]
Conditions = Annotated[tuple[str, ...] | None, Option(metavar="NAME", choices=CONDITIONS)]
Preset = Annotated[str, Option(choices=tuple(PRESETS))]


@raw_dataset
def virtual_kitti(
    raw: Path,
    crop: Annotated[tuple[int, int], Option(metavar=("H", "W"))] = (352, 1216),
    normals: Literal["from-depth", "none"] = "from-depth",
    preset: Preset = "all",
    val_scenes: Scenes = None,
    conditions: Conditions = None,
    cameras: tuple[Literal[0, 1], ...] = (),
    name: str = "virtual_kitti",
) -> VirtualKitti:
    """Prepare Virtual KITTI 2 (release 2.0.3).

    Args:
        raw: Folder of the data set as released.
        crop: Height and width of the samples, cut from the bottom, horizontally centred.
        normals: from-depth: compute normals; none: leave them out.
        preset: paper: morning, fog, rain, sunset, overcast of all scenes to train on; marigold: clone, 15-deg-left,
            15-deg-right, morning, overcast, sunset with Scene01 held out; all: every condition with Scene01 held out.
        val_scenes: Scenes held out, by default the preset's: Scene01 Scene02 ...
        conditions: Conditions to prepare, by default the preset's: clone fog ...
        cameras: Cameras to prepare; none means all.
        name: Name in logs and shard names.
    """
    chosen = PRESETS[preset]
    return VirtualKitti(
        raw,
        crop,
        normals,
        chosen.val_scenes if val_scenes is None else val_scenes,
        chosen.conditions if conditions is None else conditions,
        cameras,
        name,
    )
