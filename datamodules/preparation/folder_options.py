"""The command line of ``prepare folder``: from options to a ``FolderDataset``."""

import argparse
from typing import Literal, get_args

from datamodules.sources.fitting import Shape
from datamodules.sources.folder import FAR_PLANE_M, NEAR_PLANE_M, DepthFormat, DepthKind, FolderDataset, NormalsFrame
from datamodules.sources.folder_cameras import FolderCameras
from datamodules.sources.folder_frames import IMAGE_SUFFIXES, FolderSplit, NamedFiles, suffixes_of
from datamodules.sources.image_files import read_image
from geometry.errors import InputError
from geometry.files.paths import folder_or_url, given_path, path_argument
from geometry.modalities import Depth, Normals, modality_named, registered


def folder_dataset(options: argparse.Namespace) -> FolderDataset:
    """Return the data set that the options describe.

    Raises:
        InputError: there is no image to take the size from, or an option changes nothing beside the others.
    """
    _refuse_idle_options(options)
    images = NamedFiles(options.images, options.image_pattern)
    cameras = FolderCameras(
        tuple(options.intrinsics) if options.intrinsics else None,
        options.cameras,
        options.fov_deg,
        options.pixel_center,
    )
    return FolderDataset(
        images=images,
        depth=options.depth and NamedFiles(options.depth, options.depth_pattern),
        shape=_shape(options, images),
        depth_format=DepthFormat(
            options.depth_scale,
            options.depth_kind,
            tuple(options.depth_unknown),
            options.depth_error,
            options.array_name,
        ),
        normals=_normals(options, cameras),
        normals_frame=options.normals_frame,
        cameras=cameras,
        split=FolderSplit(options.val_fraction, options.val_list),
        skip_missing=options.missing == "skip",
        name=options.name,
        near_plane_m=options.near,
        far_plane_m=options.far,
        others={
            name: NamedFiles(getattr(options, name), getattr(options, f"{name}_pattern"))
            for name in _further_modalities()
            if getattr(options, name)
        },
    )


def _refuse_idle_options(options: argparse.Namespace) -> None:
    """An option that changes nothing is one that was meant otherwise."""
    from_files = options.normals not in (None, "from-depth", "none")
    for is_given, is_used, sentence in (
        (options.normals_pattern is not None, from_files, "--normals-pattern names files of --normals DIR, which"),
        (options.normals_frame != "opengl", from_files, "--normals-frame is that of files in --normals DIR, which"),
        (options.depth_error > 0, not from_files and options.normals != "none", "--depth-error smooths normals, which"),
        (options.crop_at == "bottom", bool(options.crop), "--crop-at says where --crop H W lies, which"),
    ):
        if is_given and not is_used:
            missing = "are not computed from depth here" if "smooths" in sentence else "is not given"
            raise InputError(f"{sentence} {missing}. Leave the option out, or give what it needs.")


def _further_modalities() -> list[str]:
    """Return the modalities whose files need no option to be understood."""
    return [name for name in registered() if name not in (Depth.name, Normals.name)]


def _shape(options: argparse.Namespace, images: NamedFiles) -> Shape:
    if options.size:
        return Shape(tuple(options.size), "resize")
    if options.crop:
        return Shape(tuple(options.crop), "crop-bottom" if options.crop_at == "bottom" else "crop")
    first = read_image(next(iter(images.scan(IMAGE_SUFFIXES, "image").values())))
    return Shape((first.shape[0], first.shape[1]))


def _normals(options: argparse.Namespace, cameras: FolderCameras) -> NamedFiles | Literal["from-depth", "none"]:
    if options.normals is None:
        return "from-depth" if cameras.known and options.depth else "none"
    if options.normals in ("from-depth", "none"):
        return options.normals
    return NamedFiles(given_path(options.normals, "--normals"), options.normals_pattern)


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``prepare folder`` to a parser, apart from those on output."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--images", type=path_argument, required=True, metavar="DIR", help="folder of images, searched throughout"
    )
    files.add_argument(
        "--depth",
        type=path_argument,
        metavar="DIR",
        help="folder of depth: .png (16 bits) .npy .npz .exr .pfm",
    )
    files.add_argument(
        "--normals",
        type=folder_or_url,
        metavar="DIR",
        help="folder of normals (.npy .npz .exr .pfm, .png of 8 or 16 bits); or from-depth: compute them; or none "
        "(default: from-depth where depth and cameras are given, else none)",
    )
    for name in _further_modalities():
        files.add_argument(
            f"--{name}",
            type=path_argument,
            metavar="DIR",
            help=f"folder of {modality_named(name).title} ({' '.join(suffixes_of(name))})",
        )
    files.add_argument(
        "--missing",
        choices=("error", "skip"),
        default="error",
        help="images that lack a file: error stops, skip counts them (default: %(default)s)",
    )
    for what in ("image", "depth", "normals", *_further_modalities()):
        example = "rgb_{}.jpg" if what == "image" else f"{what}_{{}}.png"
        files.add_argument(
            f"--{what}-pattern",
            metavar="NAME",
            help=f"names of the {what} files, such as '{example}', with {{}} for the part that is the same everywhere; "
            "with a slash, paths below the folder (default: names are equal up to the extension)",
        )
    files.add_argument("--array-name", metavar="NAME", help="array of .npz or channel of .exr files that is the depth")
    _add_meaning(parser.add_argument_group("what the numbers mean"))
    _add_size_and_split(parser.add_argument_group("size and split"))


def _add_meaning(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--depth-scale",
        type=float,
        metavar="N",
        help="units per metre: 1000 for millimetres, 256 for KITTI (default: metres; required for whole numbers)",
    )
    group.add_argument(
        "--depth-kind",
        choices=get_args(DepthKind),
        default="planar",
        help="planar: along the viewing axis; ray-distance: to the camera's centre (default: %(default)s)",
    )
    group.add_argument(
        "--depth-unknown",
        type=float,
        nargs="+",
        default=(),
        metavar="V",
        help="stored values that mean unknown, such as 65535, besides 0, negative, NaN and infinite ones",
    )
    group.add_argument(
        "--depth-error",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="noise and steps of the sensor relative to depth, averaged out before normals are computed: 0.005 for a "
        "Kinect (default: %(default)s)",
    )
    group.add_argument(
        "--near", type=float, default=NEAR_PLANE_M, metavar="M", help="nearest valid depth in metres (%(default)s)"
    )
    group.add_argument(
        "--far", type=float, default=FAR_PLANE_M, metavar="M", help="farthest valid depth in metres (%(default)s)"
    )
    group.add_argument(
        "--normals-frame",
        choices=get_args(NormalsFrame),
        default="opengl",
        help="axes of the normals: opengl: x right, y up, z toward the viewer; opencv: x right, y down, z forward; "
        "dsine: x left, y up, z toward the viewer (default: %(default)s)",
    )
    _add_cameras(group)


def _add_cameras(group: argparse._ArgumentGroup) -> None:
    cameras = group.add_mutually_exclusive_group()
    cameras.add_argument(
        "--intrinsics", type=float, nargs=4, metavar=("FX", "FY", "CX", "CY"), help="intrinsics of all images in pixels"
    )
    cameras.add_argument(
        "--cameras",
        type=path_argument,
        metavar="PATH",
        help="a .txt or .json file with the intrinsics of all images (RealSense's, Open3D's and Azure Kinect's are "
        "read); a folder with one such file per image; a .json with an entry per image; or a .csv with the columns "
        "image,fx,fy,cx,cy",
    )
    cameras.add_argument("--fov-deg", type=float, metavar="DEG", help="horizontal field of view of all images")
    group.add_argument(
        "--pixel-center",
        type=float,
        choices=(0.0, 0.5),
        default=0.0,
        help="coordinate of the first pixel's centre that the intrinsics count with (default: %(default)s, as OpenCV)",
    )


def _add_size_and_split(group: argparse._ArgumentGroup) -> None:
    sizes = group.add_mutually_exclusive_group()
    sizes.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="resize to this (default: keep the size)")
    sizes.add_argument("--crop", type=int, nargs=2, metavar=("H", "W"), help="cut to this")
    group.add_argument(
        "--crop-at",
        choices=("center", "bottom"),
        default="center",
        help="where the crop lies; horizontally it is centred (default: %(default)s)",
    )
    held_out = group.add_mutually_exclusive_group()
    held_out.add_argument(
        "--val-fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="share of the folders of images that is held out for validation; of the images if there is one folder",
    )
    held_out.add_argument(
        "--val-list",
        type=path_argument,
        metavar="FILE",
        help="text file that names the folders or images to hold out, one a line",
    )
