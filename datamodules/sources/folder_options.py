"""The options of your own data: which files there are, what their numbers mean, and how large the samples are."""

from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from datamodules.sources.folder_frames import NamedFiles, suffixes_of
from geometry.command_line import Option
from geometry.files.paths import folder_or_url, given_path
from geometry.modalities import Depth, Normals, modality_named, registered

Pixels = Annotated[tuple[int, int] | None, Option(metavar=("H", "W"))]
DepthKind = Literal["planar", "ray-distance"]
NormalsFrame = Literal["opengl", "opencv", "dsine"]


@dataclass(frozen=True)
class Files:
    """Files.

    Attributes:
        images: Folder of images, searched throughout.
        depth: Folder of depth: .png (16 bits) .npy .npz .exr .pfm.
        normals: Folder of normals (.npy .npz .exr .pfm, .png of 8 or 16 bits); or from-depth: compute them; or none. By
            default from-depth where depth and cameras are given, else none.
        missing: Images that lack a file: error stops, skip counts them.
        image_pattern: Names of the image files, such as 'rgb_{}.jpg', with {} for the part that is the same everywhere;
            with a slash, paths below the folder. By default names are equal up to the extension.
        depth_pattern: The same for depth, such as 'depth_{}.png'.
        normals_pattern: The same for normals, such as 'normals_{}.png'.
        array_name: Array of .npz or channel of .exr files that is the depth.
    """

    images: Annotated[Path, Option(metavar="DIR")]
    depth: Annotated[Path | None, Option(metavar="DIR")] = None
    normals: Annotated[str | None, Option(metavar="DIR", parse=folder_or_url)] = None
    missing: Literal["error", "skip"] = "error"
    image_pattern: str | None = None
    depth_pattern: str | None = None
    normals_pattern: str | None = None
    array_name: str | None = None

    @property
    def has_normals(self) -> bool:
        """Whether normals are in files."""
        return self.normals not in (None, "from-depth", "none")

    def targets(self) -> dict[str, NamedFiles]:
        """Return where depth and normals are, as far as they are in files."""
        folders = {"depth": self.depth, "normals": self.normals if self.has_normals else None}
        return {
            name: NamedFiles(given_path(folder, f"--{name}"), getattr(self, f"{name}_pattern"))
            for name, folder in folders.items()
            if folder
        }


def further_modalities() -> list[str]:
    """Return the modalities whose files need no option to be understood."""
    return [name for name in registered() if name not in (Depth.name, Normals.name)]


def further_files() -> Callable[..., Any]:
    """Return a dataclass with the options of the further modalities: a folder and a pattern of each."""
    fields: list[tuple[str, Any, Any]] = []
    texts = ["Files of further modalities.", "", "Attributes:"]
    for name in further_modalities():
        fields += [(name, Annotated[Path | None, Option(metavar="DIR")], None), (f"{name}_pattern", str | None, None)]
        texts.append(f"    {name}: Folder of {modality_named(name).title} ({' '.join(suffixes_of(name))}).")
        texts.append(f"    {name}_pattern: The same as --image_pattern for {name}, such as '{name}_{{}}.png'.")
    namespace = {"__doc__": "\n".join(texts), "__module__": __name__}
    return make_dataclass("FurtherFiles", fields, namespace=namespace, frozen=True)


FurtherFiles = further_files()


@dataclass(frozen=True)
class Meaning:
    """What the numbers mean.

    Attributes:
        depth_scale: Units per metre: 1000 for millimetres, 256 for KITTI. By default metres; needed for whole numbers.
        depth_kind: planar: along the viewing axis; ray-distance: to the camera's centre.
        depth_unknown: Stored values that mean unknown, such as 65535, besides 0, negative, NaN and infinite ones.
        depth_error: Noise and steps of the sensor relative to depth, averaged out before normals are computed: 0.005
            for a Kinect.
        near: Nearest valid depth in metres.
        far: Farthest valid depth in metres.
        normals_frame: Axes of the normals: opengl: x right, y up, z toward the viewer; opencv: x right, y down, z
            forward; dsine: x left, y up, z toward the viewer.
    """

    depth_scale: float | None = None
    depth_kind: DepthKind = "planar"
    depth_unknown: tuple[float, ...] = ()
    depth_error: float = 0.0
    near: float = 1e-3
    far: float = 1000.0
    normals_frame: NormalsFrame = "opengl"


@dataclass(frozen=True)
class Size:
    """Size.

    Attributes:
        size: Resize to this height and width. By default the size is kept.
        crop: Cut to this height and width.
        crop_at: Where the crop lies; horizontally it is centred.
    """

    size: Pixels = None
    crop: Pixels = None
    crop_at: Literal["center", "bottom"] = "center"
