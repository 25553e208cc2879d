"""Your own images as a command of ``prepare``, and how its options become a ``FolderDataset``."""

from collections.abc import Callable
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from datamodules.sources.fitting import Shape
from datamodules.sources.folder import FAR_PLANE_M, NEAR_PLANE_M, DepthFormat, DepthKind, FolderDataset, NormalsFrame
from datamodules.sources.folder_cameras import FolderCameras
from datamodules.sources.folder_frames import IMAGE_SUFFIXES, FolderSplit, NamedFiles, suffixes_of
from datamodules.sources.image_files import read_image
from datamodules.sources.registry import raw_dataset
from geometry.command_line import Option
from geometry.errors import InputError
from geometry.files.paths import folder_or_url, given_path
from geometry.modalities import Depth, Normals, modality_named, registered

Size = Annotated[tuple[int, int] | None, Option(metavar=("H", "W"))]


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
    near: float = NEAR_PLANE_M
    far: float = FAR_PLANE_M
    normals_frame: NormalsFrame = "opengl"


@dataclass(frozen=True)
class Cameras:
    """Cameras.

    Attributes:
        intrinsics: Focal lengths and principal point of all images in pixels.
        cameras: A .txt or .json file with the intrinsics of all images (RealSense's, Open3D's and Azure Kinect's are
            read); a folder with one such file per image; a .json with an entry per image; or a .csv with the columns
            image,fx,fy,cx,cy.
        fov_deg: Horizontal field of view of all images in degrees.
        pixel_center: Coordinate of the first pixel's centre that the intrinsics count with; 0 as OpenCV, or 0.5.
    """

    intrinsics: Annotated[tuple[float, float, float, float] | None, Option(metavar=("FX", "FY", "CX", "CY"))] = None
    cameras: Path | None = None
    fov_deg: float | None = None
    pixel_center: float = 0.0


@dataclass(frozen=True)
class SizeAndSplit:
    """Size and split.

    Attributes:
        size: Resize to this height and width. By default the size is kept.
        crop: Cut to this height and width.
        crop_at: Where the crop lies; horizontally it is centred.
        val_fraction: Share of the folders of images that is held out for validation; of the images if there is one
            folder.
        val_list: Text file that names the folders or images to hold out, one a line.
    """

    size: Size = None
    crop: Size = None
    crop_at: Literal["center", "bottom"] = "center"
    val_fraction: float = 0.0
    val_list: Path | None = None


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
    return make_dataclass("FurtherFiles", fields, namespace={"__doc__": "\n".join(texts)}, frozen=True)


FurtherFiles = further_files()


@raw_dataset
def folder(
    files: Files,
    further: FurtherFiles,  # type: ignore[valid-type]
    meaning: Meaning,
    cameras: Cameras,
    fit: SizeAndSplit,
    name: str = "folder",
) -> FolderDataset:
    """Prepare a folder of your own images with any set of modalities.

    Args:
        files: Files.
        further: Files of further modalities.
        meaning: What the numbers mean.
        cameras: Cameras.
        fit: Size and split.
        name: Name in logs and shard names.

    Raises:
        InputError: there is no image to take the size from, or an option changes nothing beside the others.
    """
    _refuse_idle_options(files, meaning, cameras, fit)
    images = NamedFiles(files.images, files.image_pattern)
    known = FolderCameras(cameras.intrinsics, cameras.cameras, cameras.fov_deg, cameras.pixel_center)
    return FolderDataset(
        images=images,
        depth=NamedFiles(files.depth, files.depth_pattern) if files.depth else None,
        shape=_shape(fit, images),
        depth_format=DepthFormat(
            meaning.depth_scale, meaning.depth_kind, meaning.depth_unknown, meaning.depth_error, files.array_name
        ),
        normals=_normals(files, known),
        normals_frame=meaning.normals_frame,
        cameras=known,
        split=FolderSplit(fit.val_fraction, fit.val_list),
        skip_missing=files.missing == "skip",
        name=name,
        near_plane_m=meaning.near,
        far_plane_m=meaning.far,
        others={
            other: NamedFiles(getattr(further, other), getattr(further, f"{other}_pattern"))
            for other in further_modalities()
            if getattr(further, other, None)  # None for one that was registered after the options were made
        },
    )


def _refuse_idle_options(files: Files, meaning: Meaning, cameras: Cameras, fit: SizeAndSplit) -> None:
    """An option that changes nothing is one that was meant otherwise; two that say the same are one too many."""
    from_files = files.normals not in (None, "from-depth", "none")
    for is_given, is_used, sentence in (
        (files.normals_pattern is not None, from_files, "--normals_pattern names files of --normals DIR, which"),
        (meaning.normals_frame != "opengl", from_files, "--normals_frame is that of files in --normals DIR, which"),
        (meaning.depth_error > 0, not from_files and files.normals != "none", "--depth_error smooths normals, which"),
        (fit.crop_at == "bottom", bool(fit.crop), "--crop_at says where --crop H W lies, which"),
    ):
        if is_given and not is_used:
            missing = "are not computed from depth here" if "smooths" in sentence else "is not given"
            raise InputError(f"{sentence} {missing}. Leave the option out, or give what it needs.")
    if fit.size and fit.crop:
        raise InputError("--size and --crop both say how large the samples are; give one of them.")
    if cameras.pixel_center not in (0.0, 0.5):
        raise InputError(f"--pixel_center is 0 or 0.5, not {cameras.pixel_center}.")


def _shape(fit: SizeAndSplit, images: NamedFiles) -> Shape:
    if fit.size:
        return Shape(fit.size, "resize")
    if fit.crop:
        return Shape(fit.crop, "crop-bottom" if fit.crop_at == "bottom" else "crop")
    first = read_image(next(iter(images.scan(IMAGE_SUFFIXES, "image").values())))
    return Shape((first.shape[0], first.shape[1]))


def _normals(files: Files, cameras: FolderCameras) -> NamedFiles | Literal["from-depth", "none"]:
    if files.normals is None:
        return "from-depth" if cameras.known and files.depth else "none"
    if files.normals in ("from-depth", "none"):
        return "from-depth" if files.normals == "from-depth" else "none"
    return NamedFiles(given_path(files.normals, "--normals"), files.normals_pattern)
