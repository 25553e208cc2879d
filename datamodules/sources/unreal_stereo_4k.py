"""UnrealStereo4K: eight rendered scenes, indoors and outdoors, in stereo of 3840x2160 pixels.

Raw layout: ``RAW/00000/Image0/00000.png`` (left; Image1 is right), ``Disp0/00000.npy`` (disparity in pixels, float32),
and ``Extrinsics0/00000.txt`` with two lines: the 9 numbers of K, and the 12 of the camera's pose (camera from world).
Planar depth is focal length times the distance of the two cameras, in metres, over disparity.

Source: fabiotosi92/SMD-Nets (CVPR 2021).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from datamodules.sources.array_files import read_array_file
from datamodules.sources.planar_frames import Array, Measured, Pixels, PlanarFrame, PlanarScenes, depth_of_disparity
from datamodules.sources.registry import raw_dataset
from geometry.errors import InputError
from geometry.files.reading import read_text_file


@raw_dataset
@dataclass(frozen=True)
class UnrealStereo4K(PlanarScenes):
    """Prepare UnrealStereo4K.

    Attributes:
        size: Height and width of the samples; the frames have 2160 3840.
        val_scenes: Scenes held out for validation, for instance 00007.
        cameras: Cameras to prepare: 0 is left, 1 right.
    """

    size: Pixels = (540, 960)
    name: str = "unreal_stereo_4k"
    cameras: tuple[Literal[0, 1], ...] = (0,)

    source: ClassVar[str] = "unreal_stereo_4k"
    example: ClassVar[str] = "00000/Image0/00000.png"

    def options(self) -> dict[str, object]:
        """Return the choices that shape the samples."""
        return super().options() | {"cameras": list(self.cameras)}

    def scan(self) -> list[PlanarFrame]:
        """Return all frames of the cameras."""
        cameras = "|".join(map(str, self.cameras))
        found = self.find("*/Image*/*.png", rf"([^/]+)/Image({cameras})/(\d{{5}})\.png")
        return [PlanarFrame(match[1], path, (match[2], match[3])) for path, match in found]

    def read(self, frame: PlanarFrame, size: tuple[int, int]) -> Measured:
        """Return the truth of a frame: see ``PlanarFrames``."""
        (camera, number), scene = frame.parts, frame.image.parents[1]
        disparity = read_array_file(scene / f"Disp{camera}" / f"{number}.npy", 1)
        files = [scene / f"Extrinsics{index}" / f"{number}.txt" for index in (0, 1)]
        (left, right), own = (read_extrinsics(file) for file in files), files[int(camera)]
        intrinsics = (left, right)[int(camera)][0]
        baseline_m = float(np.linalg.norm(_center(left[1]) - _center(right[1])))
        if not 0 < baseline_m < np.inf:
            raise InputError(f"{files[0]} and {files[1].name} place both cameras at one point: there is no depth.")
        focal = float(intrinsics[0, 0])
        depth = depth_of_disparity(disparity, focal, baseline_m)
        numbers = (focal, float(intrinsics[1, 1]), float(intrinsics[0, 2]), float(intrinsics[1, 2]))
        return Measured(depth, numbers, own.parent.name)


@lru_cache(maxsize=8)
def read_extrinsics(path: Path) -> tuple[Array, Array]:
    """Return K (3,3) and the pose (3,4), camera from world, in metres, from a file of two lines.

    Raises:
        InputError: the file cannot be read or has another form.
    """
    lines = read_text_file(path).strip().split("\n")
    try:
        intrinsics, pose = (np.array(line.split(), np.float64) for line in lines[:2])
        if not (np.isfinite(intrinsics).all() and np.isfinite(pose).all()):
            raise ValueError("a number is not finite")
        return intrinsics.reshape(3, 3), pose.reshape(3, 4)
    except ValueError as error:
        raise InputError(f"{path} must have a line of 9 numbers (K) and one of 12 (the pose): {error}.") from error


def _center(pose: Array) -> Array:
    """Return where a camera is in the world."""
    return -pose[:, :3].T @ pose[:, 3]
