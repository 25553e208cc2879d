"""Options of ``onestep predict``, by what they concern."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from geometry.command_line import Option
from geometry.errors import InputError
from lightning_modules.inference.predictor import Precision
from lightning_modules.uncertainty.spread import Uncertainty, UncertaintyBy


@dataclass(frozen=True)
class Computation:
    """Computation.

    Attributes:
        processing_res: Longest side in pixels at which the network sees an image; 0 is the image's own size. By default
            that of the training, which the model says.
        tile_size: Images that the network would see larger than a square of this side are predicted in overlapping
            tiles; 0 never tiles.
        batch_size: Images of like size computed at once.
        device: cpu, cuda, ...; auto takes a GPU where there is one.
        precision: Arithmetic of the network.
        seed: Seed of the noise, for networks trained with noise.
        overwrite: Predict images whose results are there already.
        quiet: Show no progress bar.
    """

    processing_res: Annotated[int | None, Option(metavar="PX")] = None
    tile_size: Annotated[int, Option(metavar="PX")] = 1024
    batch_size: int = 4
    device: str = "auto"
    precision: Precision = "float32"
    seed: int = 0
    overwrite: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Surface:
    """Further files of depth.

    Attributes:
        point_cloud: Write a PLY file of coloured points beside depth.
        mesh: Write a surface, as GLB and as PLY with faces.
        near_white: Write a 16-bit grey PNG: nearest white, farthest black.
        millimetres: Write a 16-bit PNG in millimetres between --near_m and --far_m; an image with --anchors has one of
            measured millimetres anyway, and gets no other.
        intrinsics: Focal lengths and principal point in pixels of the images.
        fov_deg: Field of view along the longer side in degrees, by default 55.
        normals: Where the camera is unknown: folder with results of a model of normals for the same images, from which
            focal length and range are estimated.
        near_m: Depth of the nearest point in metres, by default 1.
        far_m: Depth of the farthest point in metres, by default 10.
    """

    point_cloud: bool = False
    mesh: bool = False
    near_white: bool = False
    millimetres: bool = False
    intrinsics: Annotated[tuple[float, float, float, float] | None, Option(metavar=("FX", "FY", "CX", "CY"))] = None
    fov_deg: float | None = None
    normals: Annotated[Path | None, Option(metavar="DIR")] = None
    near_m: float | None = None
    far_m: float | None = None


@dataclass(frozen=True)
class Metres:
    """Depth in metres.

    Attributes:
        anchors: Pixels whose depth is known: a CSV file with the columns image, x, y, metres, or the folder of a COLMAP
            model as text.
        anchor_tolerance: Relative error beyond which an anchor is not believed.
    """

    anchors: Path | None = None
    anchor_tolerance: float = 0.1


@dataclass(frozen=True)
class Confidence:
    """How sure a prediction is.

    Attributes:
        uncertainty: Write an image of the spread of several predictions beside each prediction, which stays as it is.
            flip compares with the prediction of the mirrored image, views also with those of the image shifted, smaller
            and larger; ensemble compares predictions from different noise, and needs a model that predicts from noise.
        members: Predictions that ensemble compares, by default 10.

    Raises:
        InputError: members are given without an ensemble.
    """

    uncertainty: UncertaintyBy | None = None
    members: int | None = None

    def __post_init__(self) -> None:
        if self.members is not None and self.uncertainty != "ensemble":
            raise InputError("--members concerns --uncertainty ensemble alone; add it, or leave --members out.")

    def measure(self) -> Uncertainty | None:
        """Return what uncertainty is measured by.

        Raises:
            InputError: there are too few or too many members.
        """
        if self.uncertainty is None:
            return None
        return Uncertainty(self.uncertainty) if self.members is None else Uncertainty(self.uncertainty, self.members)


@dataclass(frozen=True)
class Footage:
    """Video and panoramas.

    Attributes:
        video: Take each folder as the frames of one video, in the order of their names. Files that end like a video are
            videos anyway.
        window: Frames before it that each frame of a video is aligned to, by default 10.
        fps: Frames per second of a video that is made of a folder, by default 25.
        panorama: Take images for equirectangular panoramas, and predict them in overlapping perspective views. Depth
            becomes distance along the ray.
    """

    video: bool = False
    window: int | None = None
    fps: float | None = None
    panorama: bool = False

    def __post_init__(self) -> None:
        if self.panorama and self.video:
            raise InputError("--panorama and --video do not go together; predict the frames as images with --panorama.")

    def check(self, num_clips: int, others: dict[str, bool]) -> None:
        """Make sure that options of video stand beside a video, and those of photos do not.

        Args:
            num_clips: how many videos there are.
            others: whether options are given that videos do not take, by their names.

        Raises:
            InputError: they do not fit each other.
        """
        alone = [name for name in ("window", "fps") if getattr(self, name) is not None]
        if alone and not num_clips:
            raise InputError(f"--{alone[0]} concerns videos alone; name a video, or a folder of frames with --video.")
        given = [name for name, is_given in others.items() if is_given]
        if given and num_clips:
            raise InputError(f"--{given[0]} is of single images, and a video takes none; predict them apart.")
        if self.panorama and num_clips:
            raise InputError("--panorama takes images, not videos; predict the frames as images.")
        if self.panorama and given:
            raise InputError(f"--{given[0]} is of planar depth from one camera, and a panorama has none; leave it out.")
