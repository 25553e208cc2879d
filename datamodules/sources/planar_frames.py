"""What data sets share that were rendered with a pinhole camera and store planar depth: size, normals, splits."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch

from datamodules.sources.fitting import Shape
from datamodules.sources.image_files import read_image
from datamodules.sources.pinhole import cached_rays, pinhole_matrix
from datamodules.sources.protocol import FrameList, PreparedSample
from geometry.camera import camera_from_intrinsics
from geometry.command_line import Option
from geometry.errors import InputError
from geometry.normals import normals_from_depth

Array = np.ndarray
Pixels = Annotated[tuple[int, int], Option(metavar=("H", "W"))]


class Measured(NamedTuple):
    """Truth of a frame.

    Attributes:
        depth: (H,W), planar, in metres; what is not finite and positive is unknown.
        intrinsics: focal lengths and principal point (fx, fy, cx, cy) in pixels, which count as ``pixel_center`` says.
        source: where these come from.
    """

    depth: Array
    intrinsics: tuple[float, float, float, float]
    source: str


class PlanarFrame(NamedTuple):
    """One frame: its scene, its image, and what its key is made of beside the scene."""

    scene: str
    image: Path
    parts: tuple[str, ...]

    def __str__(self) -> str:
        return self.key

    @property
    def key(self) -> str:
        """Id of the sample, for instance "office-Easy-P000-000000"."""
        return "-".join((self.scene, *self.parts)).replace(".", "_")


class Rendered(ABC):
    """A rendered data set: images with planar depth through a pinhole camera.

    Attributes:
        raw: folder of the data set as released.
        normals: "from-depth" or "none".
        far_m: depth in metres beyond which nothing is known; the sky is stored as farther than any.
        near_m: smallest valid depth in metres.
        source: what the options of the prepared data set call it.
        pixel_center: coordinate of the first pixel's centre. A renderer's principal point is the middle of the image:
            coordinates count from its corner.
        relative_error: largest rounding error of stored depth, relative to depth.
        error_m: largest rounding error of stored depth in metres.
    """

    raw: Path
    normals: str
    far_m: float
    near_m: ClassVar[float] = 0.01
    source: ClassVar[str]
    pixel_center: ClassVar[float] = 0.5
    relative_error: ClassVar[float] = 0.0
    error_m: ClassVar[float] = 0.0

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """How frames get the size of the samples."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of the samples."""
        return self.shape.image_size

    @property
    def modalities(self) -> tuple[str, ...]:
        """What every sample holds."""
        return ("depth", "normals") if self.normals != "none" else ("depth",)

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Near and far plane."""
        return {"depth": (self.near_m, self.far_m)}

    def find(self, glob: str, form: str) -> Iterator[tuple[Path, re.Match[str]]]:
        """Yield the files that a pattern finds in the folder, with the groups of an expression for their whole path."""
        for path in self.raw.glob(glob):
            if match := re.fullmatch(form, path.relative_to(self.raw).as_posix()):
                yield path, match

    def image_of(self, frame: Any) -> Path:  # noqa: ANN401 - a frame of the data set
        """Return the file of a frame's image."""
        return frame.image

    @abstractmethod
    def read(self, frame: Any, size: tuple[int, int]) -> Measured:  # noqa: ANN401
        """Return what a frame's files hold beside its image of (height, width) pixels.

        Raises:
            InputError: a file is missing or cannot be read.
        """

    def load(self, frame: Any) -> PreparedSample:  # noqa: ANN401
        """Return a frame in the project's own units and axes.

        Raises:
            InputError: one of the frame's files is missing, unreadable or too small, or depth and image differ in size.
        """
        path = self.image_of(frame)
        image = read_image(path)
        size = (image.shape[0], image.shape[1])
        depth, numbers, source = self.read(frame, size)
        if depth.shape != size:
            raise InputError(f"{path} is {size[0]}x{size[1]} pixels, but its depth {depth.shape[0]}x{depth.shape[1]}.")
        camera = camera_from_intrinsics(pinhole_matrix(numbers, size, source, str(frame)))
        values = torch.from_numpy(depth.astype(np.float32))[None]
        valid = (values >= self.near_m) & (values <= self.far_m) & (values < torch.inf)
        values = torch.where(valid, values, 0.0)
        targets = {"depth": values[0].numpy()}
        if self.normals != "none":
            rays = cached_rays(tuple(camera.flatten().tolist()), size, self.pixel_center)
            found = normals_from_depth(values, rays, valid, self.relative_error, self.error_m)[0]
            targets["normals"] = found.numpy()
        sample = PreparedSample(
            image=image,
            targets=targets,
            camera_from_pixel=camera.numpy(),
            pixel_center=self.pixel_center,
            info={"source": str(frame), "camera": source, "normals": self.normals},
        )
        return self.shape.fit(sample, path)


@dataclass(frozen=True)
class PlanarFrames(Rendered):
    """A rendered data set whose frames are resized. A subclass is a command of ``prepare``.

    Attributes:
        raw: Folder of the data set as released.
        size: Height and width of the samples; frames of another size are resized.
        normals: from-depth: compute normals; none: leave them out.
        far_m: Depth in metres beyond which nothing is known; the sky is stored as farther than any.
        name: Name in logs and shard names.
    """

    raw: Path
    size: Pixels
    normals: Literal["from-depth", "none"] = "from-depth"
    far_m: float = 80.0
    name: str = ""

    #: Where an image lies inside the folder, for messages.
    example: ClassVar[str]

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            InputError: it is empty.
        """
        if not self.near_m < self.far_m:
            raise InputError(f"--far_m must be more than {self.near_m:g} m, not {self.far_m:g}.")

    @property
    def held_out(self) -> tuple[str, ...]:
        """Scenes held out for validation."""
        return ()

    @property
    def shape(self) -> Shape:
        """How frames get the size of the samples."""
        return Shape(self.size, "resize")

    def options(self) -> dict[str, Any]:
        """Return the choices that shape the samples."""
        return {
            "source": self.source,
            "size": list(self.image_size),
            "normals": self.normals,
            "val_scenes": list(self.held_out),
        }

    @abstractmethod
    def scan(self) -> list[PlanarFrame]:
        """Return all frames whose image is there, in any order."""

    def list_frames(self) -> FrameList:
        """Return the frames whose colour image exists, by split.

        Raises:
            InputError: the folder holds no frame, or no scene of a name.
        """
        frames = sorted(self.scan(), key=lambda frame: frame.key)
        if not frames:
            raise InputError(f"{self.raw} holds no frame; expected {self.example} and so on.")
        scenes = {frame.scene for frame in frames}
        if unknown := sorted(set(self.held_out) - scenes):
            raise InputError(
                f"{self.raw} has no scene {unknown[0]!r} to hold out; its scenes: {', '.join(sorted(scenes)[:12])}."
            )
        notices = [f"{len(frames)} frames of {len(scenes)} scenes; depth beyond {self.far_m:g} m is unknown."]
        if not self.held_out:
            notices.append("Splits: no scene is held out for validation.")
        return FrameList.parted(frames, lambda frame: frame.scene in self.held_out, notices)


@dataclass(frozen=True)
class PlanarScenes(PlanarFrames):
    """A rendered data set of which whole scenes can be held out.

    Attributes:
        val_scenes: Scenes held out for validation.
    """

    val_scenes: Annotated[tuple[str, ...], Option(nargs="*", metavar="SCENE")] = ()

    @property
    def held_out(self) -> tuple[str, ...]:
        """Scenes held out for validation."""
        return self.val_scenes


def depth_of_disparity(disparity: Array, focal_px: float, baseline_m: float) -> Array:
    """Return planar depth in metres, float64, 0 where there is no disparity.

    Args:
        disparity: (H,W), in pixels.
        focal_px: focal length in pixels.
        baseline_m: distance of the two cameras in metres.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(disparity > 0, focal_px * baseline_m / disparity.astype(np.float64), 0)
