"""TartanAir, both versions: flights through rendered places.

Raw layout of the first: ``RAW/ENV/Easy/P000/image_left/000000_left.png`` beside
``depth_left/000000_left_depth.npy``, float32 metres along the optical axis; the archives repeat the folder ``ENV``.
Of the second: ``RAW/ENV/Data_easy/P000/image_lcam_front/000000_lcam_front.png`` beside
``depth_lcam_front/000000_lcam_front_depth.png``, the four bytes of a float32 as the four channels of a PNG. All cameras
see 90 degrees: 320 pixels of focal length at 640 pixels of width.

Source: castacks/tartanair_tools, data_type.md; castacks/tartanairpy, docs/modalities.rst.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import cv2
import numpy as np

from datamodules.sources.array_files import read_array_file
from datamodules.sources.image_files import read_png
from datamodules.sources.planar_frames import Measured, Pixels, PlanarFrame, PlanarScenes
from datamodules.sources.registry import raw_dataset
from geometry.errors import InputError

# Place, level, flight, number and camera.
_FLIGHT = r"(?:[^/]+/)?([^/]+)/(Easy|Hard|Data_easy|Data_hard)/(P[^/]*)"
_IMAGE = rf"{_FLIGHT}/image_\w+/(\d{{6}})_(left|right|lcam_front|rcam_front)\.png"


@raw_dataset
@dataclass(frozen=True)
class TartanAir(PlanarScenes):
    """Prepare TartanAir, of either version.

    Attributes:
        size: Height and width of the samples; frames of the second version are square, for instance 640 640.
        val_scenes: Places held out for validation, for instance office.
        cameras: Cameras to prepare: left and right are of the first version, the others of the second.
    """

    size: Pixels = (480, 640)
    name: str = "tartanair"
    cameras: tuple[Literal["left", "right", "lcam_front", "rcam_front"], ...] = ("left", "lcam_front")

    source: ClassVar[str] = "tartanair"
    example: ClassVar[str] = (
        "ENV/Easy/P000/image_left/000000_left.png or ENV/Data_easy/P000/image_lcam_front/000000_lcam_front.png"
    )

    def options(self) -> dict[str, object]:
        """Return the choices that shape the samples."""
        return super().options() | {"cameras": list(self.cameras)}

    def scan(self) -> list[PlanarFrame]:
        """Return all frames of the cameras."""
        places = [f"{above}*/*/P*/image_{camera}/*.png" for above in ("", "*/") for camera in self.cameras]
        found = (pair for place in places for pair in self.find(place, _IMAGE))
        return [
            PlanarFrame(match[1], path, (match[2].removeprefix("Data_"), match[3], match[5], match[4]))
            for path, match in found
        ]

    def read(self, frame: PlanarFrame, size: tuple[int, int]) -> Measured:
        """Return the truth of a frame: see ``PlanarFrames``."""
        folder = frame.image.parent.with_name(frame.image.parent.name.replace("image_", "depth_"))
        stem = folder / f"{frame.image.stem}_depth"
        if frame.image.stem.endswith("_front"):
            path = stem.with_suffix(".png")
            stored = read_png(path, cv2.IMREAD_UNCHANGED)
            if stored.dtype != np.uint8 or stored.ndim != 3 or stored.shape[2] != 4:
                raise InputError(f"{path} must hold the four bytes of a number as four channels of 8 bits.")
            depth = np.ascontiguousarray(stored).view("<f4")[..., 0]
        else:
            depth = read_array_file(stem.with_suffix(".npy"), 1)
        height, width = size
        return Measured(depth, (width / 2, width / 2, width / 2, height / 2), "90 degrees")
