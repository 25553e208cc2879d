"""The command ``onestep predict``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from geometry.command_line import Command, Option
from geometry.errors import InputError, printable
from geometry.files.locks import sole_use
from lightning_modules.command_line.console import quieten
from lightning_modules.inference.arguments import ModelChoice, find_run_configs
from lightning_modules.inference.predictor import Precision, Predictor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from lightning_modules.estimator import Estimator
    from lightning_modules.inference.batch_run import BatchRun, Report
    from lightning_modules.inference.point_cloud import PointCloudCamera

_CAMERA_OPTIONS = ("intrinsics", "fov_deg", "near_m", "far_m")


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


def predict(
    images: list[str],
    /,
    output: Path,
    model: ModelChoice,
    computation: Computation,
    surface: Surface,
    metres: Metres,
) -> int:
    """Predict images: per image an array (.npy), a 16-bit PNG and a coloured visualisation, all at its own size.

    Args:
        images: Files, folders or patterns.
        output: Folder of the results.
        model: Model.
        computation: Computation.
        surface: Further files of depth.
        metres: Depth in metres.

    Returns:
        Exit status: 0 if every image was predicted, 1 if some could not be.

    Raises:
        InputError: options, model or images cannot be found or used.
    """
    from lightning_modules.inference.anchors import read_anchors
    from lightning_modules.inference.photos import find_photos
    from lightning_modules.inference.point_cloud import PointCloudCamera
    from lightning_modules.single_task import choose

    camera = PointCloudCamera(**_described_camera(surface, metres))
    photos = find_photos(images, output)
    anchors = None if metres.anchors is None else read_anchors(metres.anchors, photos)
    singles = choose(model.load().estimator, model.modality)
    # What concerns depth is for those of several modalities that can be shown in space.
    in_space = [single for single in singles if single.task.modality.has_surface] or singles
    num_failed = 0
    for single in singles:
        if single in in_space:
            run = _run_of(single, output, computation, surface, metres, anchors, camera)
        else:
            run = _run_of(single, output, computation, Surface(), Metres())
        with sole_use(output):
            report = run.predict(photos, show_progress=not computation.quiet)
        if anchors is not None and single in in_space and len(anchors) < len(photos):
            print(f"{len(photos) - len(anchors)} of {len(photos)} images have no anchors, so no depth in metres")
        _print_report(report, run.predictor, output)
        num_failed += len(report.failed)
    return 1 if num_failed else 0


def _run_of(
    estimator: "Estimator",
    output: Path,
    computation: Computation,
    surface: Surface,
    metres: Metres,
    anchors: "Mapping[Path, np.ndarray] | None" = None,
    camera: "PointCloudCamera | None" = None,
) -> "BatchRun":
    """Return the run of one modality."""
    from lightning_modules.inference.anchored_metres import AnchoredMetres
    from lightning_modules.inference.batch_run import BatchRun
    from lightning_modules.inference.camera_estimate import CameraEstimator

    predictor = Predictor(
        estimator,
        computation.processing_res,
        computation.tile_size,
        computation.device,
        computation.precision,
        computation.seed,
    )
    estimates = None if surface.normals is None else CameraEstimator(predictor.modality, surface.normals)
    metric = None if anchors is None else AnchoredMetres(predictor.modality, anchors, metres.anchor_tolerance)
    files = _surface_files(surface)
    return BatchRun(predictor, output, computation.batch_size, computation.overwrite, metric, estimates, files, camera)


def _print_report(report: "Report", predictor: Predictor, output: Path) -> None:
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


def _seen_at(predictor: Predictor) -> str:
    """Return at which size the network saw the images, and what it was trained at."""
    side, trained = predictor.processing_res, predictor.trained_on
    sizes = trained.sizes_text() if trained else ""
    seen = f"seen at {side} pixels" if side else "seen at their own size"
    return f"{seen} (trained at {sizes})" if sizes else seen


def _surface_files(surface: Surface) -> list[str]:
    """Return the further files of depth that are asked for."""
    names = ("point-cloud", "near-white", "millimetres", "mesh")
    return [name for name in names if getattr(surface, name.replace("-", "_"))]


def _described_camera(surface: Surface, metres: Metres) -> dict[str, Any]:
    """Return what was said about the camera of point clouds.

    Raises:
        InputError: it was said without asking for point clouds, or twice.
    """
    given = {name: getattr(surface, name) for name in _CAMERA_OPTIONS if getattr(surface, name) is not None}
    asked = [*given, *(["normals"] if surface.normals is not None else [])]
    if asked and not {"point-cloud", "mesh", "millimetres"} & set(_surface_files(surface)):
        raise InputError(
            f"--{asked[0]} concerns point clouds alone, and meshes and millimetres; add --point_cloud, --mesh or "
            "--millimetres, or leave it out."
        )
    if "intrinsics" in given and "fov_deg" in given:
        raise InputError("--intrinsics and --fov_deg both say how wide the camera sees; give one of them.")
    if surface.normals is not None and given.keys() & {"intrinsics", "fov_deg", "far_m"}:
        raise InputError(
            "--normals estimate what --intrinsics, --fov_deg and --far_m say; leave out the one or the other."
        )
    if metres.anchors is not None and given.keys() & {"near_m", "far_m"}:
        raise InputError(
            "--near_m and --far_m choose a range, which --anchors measure; leave out the one or the other."
        )
    return given


COMMAND = Command(
    predict,
    kept="Images that were finished are kept: the same command predicts the others.",
    prepare_words=find_run_configs,
    before=quieten,
)


def main(arguments: Sequence[str]) -> int:
    """Run the command, as version 0.1 called it.

    Args:
        arguments: words after the command's name.
    """
    return COMMAND.main(arguments, "onestep predict")
