"""Virtual KITTI 2: JPEG, 16-bit PNG and text to images, planar depth and normals.

Raw layout: ``RAW/vkitti_2.0.3_rgb/SceneSS/CONDITION/frames/rgb/Camera_C/rgb_IIIII.jpg``,
``RAW/vkitti_2.0.3_depth/SceneSS/CONDITION/frames/depth/Camera_C/depth_IIIII.png`` and
``RAW/vkitti_2.0.3_textgt/SceneSS/CONDITION/intrinsic.txt``; the prefix ``vkitti_2.0.3_`` may be missing.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import cv2
import numpy as np

from datamodules.sources.camera_json import Numbers
from datamodules.sources.fitting import Shape
from datamodules.sources.image_files import read_png
from datamodules.sources.pinhole import pinhole_matrix
from datamodules.sources.planar_frames import Measured, Pixels, Rendered
from datamodules.sources.protocol import FrameList
from datamodules.sources.registry import raw_dataset
from geometry.command_line import Option
from geometry.errors import InputError
from geometry.files.reading import read_text_file
from geometry.normals import FLOAT16_ERROR

NOMINAL_FOCAL_LENGTH_PX = 725.0087
NOMINAL_WIDTH_PX = 1242
SCENES = ("Scene01", "Scene02", "Scene06", "Scene18", "Scene20")
CONDITIONS = (
    *("15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right"),
    *("clone", "fog", "morning", "overcast", "rain", "sunset"),
)


class Preset(NamedTuple):
    """Conditions to prepare (none means all) and scenes held out."""

    conditions: tuple[str, ...]
    val_scenes: tuple[str, ...]


PRESETS = {
    "paper": Preset(("fog", "morning", "overcast", "rain", "sunset"), ()),
    "marigold": Preset(("15-deg-left", "15-deg-right", "clone", "morning", "overcast", "sunset"), ("Scene01",)),
    "all": Preset((), ("Scene01",)),
}


class VirtualKittiFrame(NamedTuple):
    """One image, for instance ("Scene01", "clone", 0, 0): scene, condition, camera, number."""

    scene: str
    condition: str
    camera: int
    number: int

    def __str__(self) -> str:
        return f"{self.scene}/{self.condition}/Camera_{self.camera}/{self.number:05d}"

    @property
    def key(self) -> str:
        """Id of the sample, for instance "Scene01-clone-Camera_0-00000"."""
        return f"{self.scene}-{self.condition}-Camera_{self.camera}-{self.number:05d}"

    def path(self, root: Path, content: Literal["rgb", "depth"]) -> Path:
        """Return the file of the colour image or of the depth."""
        extension = "jpg" if content == "rgb" else "png"
        folder = root / self.scene / self.condition / "frames" / content / f"Camera_{self.camera}"
        return folder / f"{content}_{self.number:05d}.{extension}"


@raw_dataset
@dataclass(frozen=True)
class VirtualKitti(Rendered):
    """Prepare Virtual KITTI 2 (release 2.0.3).

    Attributes:
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

    raw: Path
    crop: Pixels = (352, 1216)
    normals: Literal["from-depth", "none"] = "from-depth"
    preset: Annotated[str, Option(choices=tuple(PRESETS))] = "all"
    val_scenes: Annotated[tuple[str, ...] | None, Option(nargs="*", metavar="SCENE", choices=SCENES)] = None
    conditions: Annotated[tuple[str, ...] | None, Option(metavar="NAME", choices=CONDITIONS)] = None
    cameras: tuple[Literal[0, 1], ...] = ()
    name: str = "virtual_kitti"

    source: ClassVar[str] = "virtual_kitti"
    # The sky is stored as 655.35 m.
    far_m = 80.0
    near_m: ClassVar[float] = 1e-5
    pixel_center: ClassVar[float] = 0.0
    # Depth is stored in whole centimetres, and kept in half precision.
    relative_error: ClassVar[float] = FLOAT16_ERROR
    error_m: ClassVar[float] = 0.005

    @property
    def chosen(self) -> Preset:
        """Conditions to prepare (none means all) and scenes held out."""
        conditions, val_scenes = PRESETS[self.preset]
        return Preset(
            conditions if self.conditions is None else self.conditions,
            val_scenes if self.val_scenes is None else self.val_scenes,
        )

    @property
    def shape(self) -> Shape:
        """How frames get the size of the samples."""
        return Shape(self.crop, "crop-bottom")

    def options(self) -> dict[str, Any]:
        """Return the choices that shape the samples."""
        return {
            "source": self.source,
            "crop": list(self.image_size),
            "normals": self.normals,
            "val_scenes": list(self.chosen.val_scenes),
            "conditions": list(self.chosen.conditions),
            "cameras": list(self.cameras),
        }

    def list_frames(self) -> FrameList:
        """Return the frames whose colour image exists, by split.

        Raises:
            InputError: the folder holds no frame, or nothing remains of the selection.
        """
        root = self._root("rgb")
        found = self.find(
            f"{root.name}/*/*/frames/rgb/Camera_*/rgb_*.jpg",
            r"[\w.]+/([\w-]+)/([\w-]+)/frames/rgb/Camera_(\d)/rgb_(\d{5})\.jpg",
        )
        frames = sorted(VirtualKittiFrame(m[1], m[2], int(m[3]), int(m[4])) for _, m in found)
        if not frames:
            example = "Scene01/clone/frames/rgb/Camera_0/rgb_00000.jpg"
            raise InputError(f"{root} holds no frame: expected {example} and so on.")
        conditions, val_scenes = self.chosen
        chosen = [
            frame
            for frame in frames
            if (not conditions or frame.condition in conditions) and (not self.cameras or frame.camera in self.cameras)
        ]
        if not chosen:
            names = {name: sorted({getattr(frame, name) for frame in frames}) for name in ("condition", "camera")}
            raise InputError(f"{root} holds no frame to prepare: --conditions and --cameras fit none of {names}.")
        notices = [f"Cut to {self.image_size[0]}x{self.image_size[1]} pixels at the bottom, horizontally centred."]
        if not any(frame.scene in val_scenes for frame in chosen):
            notices.append(f"Splits: no frame of {', '.join(val_scenes) or 'any scene'} for validation.")
        sequences = {(frame.scene, frame.condition) for frame in chosen}
        nominal = [sequence for sequence in sorted(sequences) if not self._intrinsics_path(*sequence)]
        if nominal:
            notices.append(
                f"Cameras: {len(nominal)} of {len(sequences)} sequences have no intrinsic.txt (such as "
                f"{'/'.join(nominal[0])}) and use the nominal pinhole of {NOMINAL_FOCAL_LENGTH_PX} px at width 1242."
            )
        return FrameList.parted(chosen, lambda frame: frame.scene in val_scenes, notices)

    def image_of(self, frame: VirtualKittiFrame) -> Path:
        """Return the file of a frame's image."""
        return frame.path(self._root("rgb"), "rgb")

    def read(self, frame: VirtualKittiFrame, size: tuple[int, int]) -> Measured:
        """Return the truth of a frame: see ``Rendered``."""
        path = frame.path(self._root("depth"), "depth")
        centimetres = read_png(path, cv2.IMREAD_UNCHANGED)
        if centimetres.dtype != np.uint16 or centimetres.shape != size:
            raise InputError(
                f"{path} must be a 16-bit grey PNG of {size[0]}x{size[1]} pixels like its image, "
                f"not {centimetres.dtype} {centimetres.shape}."
            )
        return Measured(centimetres.astype(np.float32) / 100, *self._intrinsics(frame, size))

    def _root(self, content: str) -> Path:
        """Return the folder of the colour images ("rgb") or of the depth ("depth")."""
        for folder in (self.raw / f"vkitti_2.0.3_{content}", self.raw / content):
            if folder.is_dir():
                return folder
        raise InputError(f"{self.raw} holds no folder vkitti_2.0.3_{content} (or {content}). Is it Virtual KITTI 2?")

    def _intrinsics_path(self, scene: str, condition: str) -> Path | None:
        folders = (self.raw / "vkitti_2.0.3_textgt", self.raw / "textgt")
        paths = (folder / scene / condition / "intrinsic.txt" for folder in folders)
        return next((path for path in paths if path.is_file()), None)

    def _intrinsics(self, frame: VirtualKittiFrame, size: tuple[int, int]) -> tuple[Numbers, str]:
        """Return (fx, fy, cx, cy) in 0-based pixels and whether they are the frame's own."""
        path = self._intrinsics_path(frame.scene, frame.condition)
        if path is None:
            focal = NOMINAL_FOCAL_LENGTH_PX * size[1] / NOMINAL_WIDTH_PX
            return (focal, focal, (size[1] - 1) / 2, (size[0] - 1) / 2), "nominal"
        table = read_intrinsics(path)
        if (frame.number, frame.camera) not in table:
            raise InputError(f"{path} has no row for frame {frame.number}, camera {frame.camera}.")
        numbers = table[frame.number, frame.camera]
        pinhole_matrix(numbers, size, path, str(frame))  # which names the file if they are no camera's
        return numbers, "scene"


@lru_cache(maxsize=8)
def read_intrinsics(path: Path) -> dict[tuple[int, int], Numbers]:
    """Return (fx, fy, cx, cy) in pixels by (frame, camera) from an ``intrinsic.txt``.

    Raises:
        InputError: the file cannot be read or a row is of another form.
    """
    table = {}
    lines = read_text_file(path).split("\n")[1:]
    try:
        for line in lines:
            if line.strip():
                frame, camera, fx, fy, cx, cy = line.split()
                table[int(frame), int(camera)] = (float(fx), float(fy), float(cx), float(cy))
    except ValueError as error:
        raise InputError(f"{path}: rows must be 'frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]' ({error}).") from error
    return table
