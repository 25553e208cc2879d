"""The command ``onestep predict``."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geometry.command_line import Command
from geometry.errors import InputError, printable
from geometry.files.locks import sole_use
from lightning_modules.command_line.console import quieten
from lightning_modules.inference.arguments import ModelChoice, find_run_configs
from lightning_modules.inference.options import Computation, Confidence, Footage, Metres, Surface
from lightning_modules.inference.predictor import Predictor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from lightning_modules.estimator import Estimator
    from lightning_modules.inference.batch_run import BatchRun, Report
    from lightning_modules.inference.photos import Photo
    from lightning_modules.inference.point_cloud import PointCloudCamera
    from lightning_modules.inference.video.run import VideoRun

_CAMERA_OPTIONS = ("intrinsics", "fov_deg", "near_m", "far_m")


def predict(
    images: list[str],
    /,
    output: Path,
    model: ModelChoice,
    computation: Computation,
    confidence: Confidence,
    surface: Surface,
    metres: Metres,
    footage: Footage,
) -> int:
    """Predict images: per image an array (.npy), a 16-bit PNG and a coloured visualisation, all at its own size.

    Videos become a coloured video and 16-bit frames, of one scale and shift over time.

    Args:
        images: Files, folders or patterns, of images or videos.
        output: Folder of the results.
        model: Model.
        computation: Computation.
        confidence: How sure a prediction is.
        surface: Further files of depth.
        metres: Depth in metres.
        footage: Video and panoramas.

    Returns:
        Exit status: 0 if every image and video was predicted, 1 if some could not be.

    Raises:
        InputError: options, model or images cannot be found or used.
    """
    from lightning_modules.inference.anchors import read_anchors
    from lightning_modules.inference.batch_run import BatchRun
    from lightning_modules.inference.photos import find_photos
    from lightning_modules.inference.point_cloud import PointCloudCamera
    from lightning_modules.inference.video.clips import predict_clips, split_clips
    from lightning_modules.single_task import choose

    camera = PointCloudCamera(**_described_camera(surface, metres))
    clips, files = split_clips(images, footage.video)
    footage.check(len(clips), _given(confidence, surface, metres))
    photos = find_photos(files, output) if files or not clips else []
    anchors = None if metres.anchors is None else read_anchors(metres.anchors, photos)
    singles = choose(model.load().estimator, model.modality)
    # What concerns depth is for those of several modalities that can be shown in space.
    in_space = [single for single in singles if single.task.modality.has_surface] or singles
    num_failed = 0
    for single in singles:
        if clips:
            num_failed += predict_clips(clips, _video_run(single, output, computation, footage), computation.quiet)
        if photos:
            predictor = _predictor(single, computation, confidence, footage.panorama)
            run = BatchRun(predictor, output, computation.batch_size, computation.overwrite)
            if single in in_space:
                run = _in_space(run, surface, metres, anchors, camera)
            num_failed += _predict_photos(run, photos, computation.quiet)
    return 1 if num_failed else 0


def _predict_photos(run: "BatchRun", photos: "Sequence[Photo]", is_quiet: bool) -> int:
    """Predict images, say what became of them, and return how many could not be predicted."""
    with sole_use(run.output):
        report = run.predict(photos, show_progress=not is_quiet)
    if run.metric is not None and len(run.metric.anchors) < len(photos):
        print(f"{len(photos) - len(run.metric.anchors)} of {len(photos)} images have no anchors, so no depth in metres")
    _print_report(report, run.predictor, run.output)
    return len(report.failed)


def _in_space(
    run: "BatchRun",
    surface: Surface,
    metres: Metres,
    anchors: "Mapping[Path, np.ndarray] | None",
    camera: "PointCloudCamera",
) -> "BatchRun":
    """Return a run that also does what concerns depth."""
    from lightning_modules.inference.anchored_metres import AnchoredMetres
    from lightning_modules.inference.camera_estimate import CameraEstimator

    modality = run.predictor.modality
    estimates = None if surface.normals is None else CameraEstimator(modality, surface.normals)
    metric = None if anchors is None else AnchoredMetres(modality, anchors, metres.anchor_tolerance)
    files = _surface_files(surface)
    return replace(run, metric=metric, camera_estimator=estimates, surface_files=files, camera=camera)


def _predictor(
    estimator: "Estimator", computation: Computation, confidence: Confidence, is_panorama: bool = False
) -> Predictor:
    from lightning_modules.inference.panorama import PanoramaPredictor

    kind = PanoramaPredictor if is_panorama else Predictor
    return kind(
        estimator,
        computation.processing_res,
        computation.tile_size,
        computation.device,
        computation.precision,
        computation.seed,
        uncertainty=confidence.measure(),
    )


def _video_run(estimator: "Estimator", output: Path, computation: Computation, footage: Footage) -> "VideoRun":
    from lightning_modules.inference.video.run import VideoRun

    return VideoRun(
        _predictor(estimator, computation, Confidence()),
        output,
        10 if footage.window is None else footage.window,
        computation.batch_size,
        25.0 if footage.fps is None else footage.fps,
        computation.overwrite,
    )


def _given(confidence: Confidence, surface: Surface, metres: Metres) -> dict[str, bool]:
    """Return which options of single images are given, by their names."""
    given = {name.replace("-", "_"): True for name in _surface_files(surface)}
    return given | {"uncertainty": confidence.uncertainty is not None, "anchors": metres.anchors is not None}


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
    kind = predictor.kind.replace("_", " ")
    print(
        f"{report.num_predicted} predicted, {len(report.failed)} failed{skipped}; {kind} in {printable(output)}, "
        f"{_seen_at(predictor)}"
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
