"""IRS: rendered rooms, offices, restaurants and stores in stereo of 960x540 pixels.

Raw layout: ``RAW/Home/ArchvizKitchen_Dark/l_00001.png`` (left; ``r_`` is right) beside ``d_00001.exr``, disparity of
the left image in pixels. What follows the first ``_`` of a folder says how the room was lit or flown through. All have
one camera: 480 pixels of focal length at 960 pixels of width, the principal point in the middle, 0.1 m from left to
right.

Source: HKBU-HPML/IRS, README.md, lists/ and dataloader/; arXiv 1912.09678.
"""

from dataclasses import dataclass
from typing import ClassVar

from datamodules.sources.array_files import read_array_file
from datamodules.sources.planar_frames import Measured, Pixels, PlanarFrame, PlanarScenes, depth_of_disparity
from datamodules.sources.protocol import FrameList
from datamodules.sources.registry import raw_dataset

_BASELINE_M = 0.1
_OTHER_BASELINE = "_BL2"


@raw_dataset
@dataclass(frozen=True)
class IRS(PlanarScenes):
    """Prepare IRS, the indoor robotics stereo data set.

    The left camera, and depth alone: normals in files are not read. A scene is a room in every light, so that none is
    in both splits.

    Attributes:
        raw: Folder that holds Home, Office, Restaurant and Store.
        val_scenes: Rooms held out for validation in every light, for instance OfficeKIT.
    """

    size: Pixels = (540, 960)
    name: str = "irs"

    source: ClassVar[str] = "irs"
    example: ClassVar[str] = "Home/ArchvizKitchen/l_00001.png beside d_00001.exr"

    def list_frames(self) -> FrameList:
        """Return the frames by split: see ``PlanarFrames``; says what is left out."""
        frames = super().list_frames()
        if left_out := sorted(path.name for path in self.raw.glob(f"*/*{_OTHER_BASELINE}")):
            frames.notices.append(
                f"Left out: {', '.join(left_out)}; the distance of their two cameras is not published."
            )
        return frames

    def scan(self) -> list[PlanarFrame]:
        """Return all frames of the left camera whose distance from the right one is known."""
        found = self.find("*/*/l_*.png", rf"[^/]+/([^/_]*)_?([^/]*)(?<!{_OTHER_BASELINE})/l_(\d+)\.png")
        return [PlanarFrame(match[1], path, (match[2] or "plain", match[3])) for path, match in found]

    def read(self, frame: PlanarFrame, size: tuple[int, int]) -> Measured:
        """Return the truth of a frame: see ``PlanarFrames``."""
        disparity = read_array_file(frame.image.with_name(f"d_{frame.parts[1]}.exr"), 1, "G")
        height, focal = size[0], size[1] / 2
        numbers = (focal, focal, focal, height / 2)
        return Measured(depth_of_disparity(disparity, focal, _BASELINE_M), numbers, "480 of 960 pixels")
