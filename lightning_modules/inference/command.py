"""The command ``python train.py predict``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geometry.errors import InputError, printable
from geometry.files.locks import sole_use
from geometry.files.paths import path_argument
from lightning_modules.inference.arguments import add_model_arguments, load_from_arguments, parse

if TYPE_CHECKING:
    from lightning_modules.inference.batch_run import Report
    from lightning_modules.inference.predictor import Predictor

_CAMERA_OPTIONS = ("intrinsics", "fov_deg", "near_m", "far_m")


def main(arguments: Sequence[str]) -> int:
    """Predict images into a folder.

    Args:
        arguments: words after the command's name.

    Returns:
        Exit status: 0 if every image was predicted, 1 if some could not be.

    Raises:
        InputError: options, model or images cannot be found or used.
    """
    options = parse(_parser(), arguments)
    from lightning_modules.inference.anchored_metres import AnchoredMetres
    from lightning_modules.inference.anchors import read_anchors
    from lightning_modules.inference.batch_run import BatchRun
    from lightning_modules.inference.camera_estimate import CameraEstimator
    from lightning_modules.inference.photos import find_photos
    from lightning_modules.inference.point_cloud import PointCloudCamera
    from lightning_modules.inference.predictor import Predictor

    camera = PointCloudCamera(**_described_camera(options))
    photos = find_photos(options.images, options.output)
    anchors = None if options.anchors is None else read_anchors(options.anchors, photos)
    predictor = Predictor(
        load_from_arguments(options).estimator,
        options.processing_res,
        options.tile_size,
        options.device,
        options.precision,
        options.seed,
    )
    estimator = None if options.normals is None else CameraEstimator(predictor.modality, options.normals.expanduser())
    metric = None if anchors is None else AnchoredMetres(predictor.modality, anchors, options.anchor_tolerance)
    run = BatchRun(
        predictor,
        options.output,
        options.batch_size,
        options.overwrite,
        metric,
        estimator,
        _surface_files(options),
        camera,
    )
    with sole_use(options.output):
        report = run.predict(photos, show_progress=not options.quiet)
    if anchors is not None and len(anchors) < len(photos):
        print(f"{len(photos) - len(anchors)} of {len(photos)} images have no anchors, so no depth in metres")
    _print_report(report, predictor, options.output)
    return 1 if report.failed else 0


def _print_report(report: "Report", predictor: "Predictor", output: Path) -> None:
    """Say what became of the images."""
    for file, reason in report.failed:
        line = reason if str(file) in reason else f"{file}: {reason}"
        print(f"failed: {printable(line)}", file=sys.stderr)
    for file, note in report.notes:
        print(printable(f"{file}: {note}"))
    skipped = (
        f", {report.num_skipped} were there already (--overwrite predicts them again)" if report.num_skipped else ""
    )
    print(
        f"{report.num_predicted} predicted, {len(report.failed)} failed{skipped}; {predictor.modality.name} in "
        f"{printable(output)}, {_seen_at(predictor)}"
    )


def _seen_at(predictor: "Predictor") -> str:
    """Return at which size the network saw the images, and what it was trained at."""
    side, trained = predictor.processing_res, predictor.trained_on
    sizes = trained.sizes_text() if trained else ""
    seen = f"seen at {side} pixels" if side else "seen at their own size"
    return f"{seen} (trained at {sizes})" if sizes else seen


def _surface_files(options: argparse.Namespace) -> list[str]:
    """Return the further files of depth that are asked for."""
    names = ("point-cloud", "near-white", "millimetres", "mesh")
    return [name for name in names if getattr(options, name.replace("-", "_"))]


def _described_camera(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was said about the camera of point clouds.

    Raises:
        InputError: it was said without asking for point clouds, or twice.
    """
    given = {name: getattr(options, name) for name in _CAMERA_OPTIONS if getattr(options, name) is not None}
    asked = [*given, *(["normals"] if options.normals is not None else [])]
    if asked and not {"point-cloud", "mesh", "millimetres"} & set(_surface_files(options)):
        name = asked[0].replace("_", "-")
        raise InputError(
            f"--{name} concerns point clouds alone, and meshes and millimetres; add --point-cloud, --mesh or "
            "--millimetres, or leave it out."
        )
    if "intrinsics" in given and "fov_deg" in given:
        raise InputError("--intrinsics and --fov-deg both say how wide the camera sees; give one of them.")
    if options.normals is not None and given.keys() & {"intrinsics", "fov_deg", "far_m"}:
        raise InputError(
            "--normals estimate what --intrinsics, --fov-deg and --far-m say; leave out the one or the other."
        )
    if options.anchors is not None and given.keys() & {"near_m", "far_m"}:
        raise InputError(
            "--near-m and --far-m choose a range, which --anchors measure; leave out the one or the other."
        )
    return given


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python train.py predict",
        description="Predict depth or normals of images: per image an array (.npy), a 16-bit PNG and a coloured "
        "visualisation, all at the image's own size.",
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="files, folders or patterns")
    parser.add_argument("--output", type=path_argument, required=True, metavar="DIR", help="folder of the results")
    add_model_arguments(parser)
    group = parser.add_argument_group("computation")
    group.add_argument(
        "--processing-res",
        type=int,
        metavar="PX",
        help="longest side at which the network sees an image; 0 is the image's own size. By default that of the "
        "training, which the model says",
    )
    group.add_argument(
        "--tile-size",
        type=int,
        default=1024,
        metavar="PX",
        help="images that the network would see larger than a square of this side are predicted in overlapping "
        "tiles; 0 never tiles (default: %(default)s)",
    )
    group.add_argument(
        "--batch-size", type=int, default=4, metavar="N", help="images of like size computed at once (default: 4)"
    )
    group.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU where there is one")
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="arithmetic of the network (default: %(default)s)",
    )
    group.add_argument(
        "--seed", type=int, default=0, help="seed of the noise, for networks trained with noise (default: 0)"
    )
    group.add_argument("--overwrite", action="store_true", help="predict images whose results are there already")
    group.add_argument("--quiet", action="store_true", help="show no progress bar")
    _add_point_cloud(parser.add_argument_group("further files of depth"))
    _add_anchors(parser.add_argument_group("depth in metres"))
    return parser


def _add_point_cloud(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--point-cloud", action="store_true", help="write a PLY file of coloured points beside depth")
    group.add_argument("--mesh", action="store_true", help="write a surface, as GLB and as PLY with faces")
    group.add_argument(
        "--near-white", action="store_true", help="write a 16-bit grey PNG: nearest white, farthest black"
    )
    group.add_argument(
        "--millimetres", action="store_true", help="write a 16-bit PNG in millimetres between --near-m and --far-m"
    )
    group.add_argument(
        "--intrinsics",
        type=float,
        nargs=4,
        metavar=("FX", "FY", "CX", "CY"),
        help="focal lengths and principal point in pixels of the images",
    )
    group.add_argument("--fov-deg", type=float, metavar="DEG", help="field of view along the longer side (default: 55)")
    group.add_argument(
        "--normals",
        type=path_argument,
        metavar="DIR",
        help="where the camera is unknown: results of a model of normals for the same images, from which focal length "
        "and range are estimated",
    )
    group.add_argument("--near-m", type=float, metavar="M", help="depth of the nearest point (default: 1)")
    group.add_argument("--far-m", type=float, metavar="M", help="depth of the farthest point (default: 10)")


def _add_anchors(group: "argparse._ArgumentGroup") -> None:
    group.add_argument(
        "--anchors",
        type=path_argument,
        metavar="FILE",
        help="pixels whose depth is known, for depth in metres: a CSV file with the columns image, x, y, metres, or "
        "the folder of a COLMAP model as text",
    )
    group.add_argument(
        "--anchor-tolerance",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="relative error beyond which an anchor is not believed (default: %(default)s)",
    )
