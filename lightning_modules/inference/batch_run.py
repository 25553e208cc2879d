"""Many images: read, batched by size, predicted and written, whatever befalls single ones."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from geometry.errors import InputError, is_lack_of_memory, one_line
from geometry.files.storage import concerns_all_files
from geometry.files.writing import write_whole
from geometry.modalities import registered
from lightning_modules.inference.anchored_metres import AnchoredMetres
from lightning_modules.inference.camera_estimate import CameraEstimator
from lightning_modules.inference.image_inputs import read_image
from lightning_modules.inference.photos import Photo
from lightning_modules.inference.point_cloud import PointCloudCamera, metric_range
from lightning_modules.inference.predictor import Predictor
from lightning_modules.inference.results import make_output, result_names, write_results, write_uncertainty
from lightning_modules.inference.surface_files import SURFACE_FILES, SurfaceMaker

# Images wait for others of their size, until so many pixels wait in all.
_WAITING_PIXELS = 30_000_000


@dataclass
class Report:
    """What became of the images.

    Attributes:
        num_predicted: images whose results were written.
        num_skipped: images whose results were there already.
        failed: file and reason of every image that could not be read, predicted or written.
        notes: file and sentence of every image that was fitted to anchors.
    """

    num_predicted: int = 0
    num_skipped: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[tuple[Path, str]] = field(default_factory=list)


@dataclass(frozen=True)
class BatchRun:
    """Predicts images into a folder.

    Attributes:
        predictor: the model.
        output: folder of the results; nothing is written outside it.
        batch_size: images of like size that are computed at once.
        overwrite: predict images whose results are there already.
        metric: write depth in metres, too, for the images with anchors.
        camera_estimator: estimates the camera of each image in place of ``camera``.
        surface_files: further files of depth to write, of ``surface_files.SURFACE_FILES``.
        camera: camera and range of these.

    Raises:
        InputError: an option makes no sense, or the output cannot be a folder.
    """

    predictor: Predictor
    output: Path
    batch_size: int = 4
    overwrite: bool = False
    metric: AnchoredMetres | None = None
    camera_estimator: CameraEstimator | None = None
    surface_files: Sequence[str] = ()
    camera: PointCloudCamera = PointCloudCamera()  # noqa: RUF009 - it is frozen

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"--batch_size must be at least 1, got {self.batch_size}.")
        modality = self.predictor.modality
        if self.surface_files and not modality.has_surface:
            surfaces = " or ".join(sorted(kind.title for kind in registered().values() if kind.has_surface))
            raise InputError(f"--{self.surface_files[0]} needs {surfaces}, but the model predicts {modality.title}.")
        make_output(self.output)

    def predict(self, photos: Sequence[Photo], show_progress: bool = True) -> Report:
        """Predict images; those that cannot be are reported, not raised.

        Args:
            photos: the images.
            show_progress: show a progress bar.
        """
        report = Report()
        waiting: dict[tuple[int, int], list[tuple[Photo, np.ndarray]]] = {}
        with tqdm(total=len(photos), unit="image", disable=not show_progress, dynamic_ncols=True) as bar:
            for photo in photos:
                try:
                    image = None if self._is_done(photo) else read_image(photo.file)
                except InputError as error:
                    report.failed.append((photo.file, str(error)))
                    bar.update()
                    continue
                if image is None:
                    report.num_skipped += 1
                    bar.update()
                    continue
                size = self.predictor.network_size(*image.shape[:2])
                waiting.setdefault(size, []).append((photo, image))
                if len(waiting[size]) == self.batch_size or self.predictor.needs_tiles(*image.shape[:2]):
                    self._finish(waiting.pop(size), report, bar)
                while _num_pixels(waiting.values()) > _WAITING_PIXELS:
                    self._finish(waiting.pop(max(waiting, key=lambda key: _num_pixels([waiting[key]]))), report, bar)
            for group in waiting.values():
                self._finish(group, report, bar)
        return report

    def _finish(self, group: list[tuple[Photo, np.ndarray]], report: Report, bar: tqdm) -> None:
        """Predict and write a batch; if it fails, each image by itself."""
        try:
            predictions = self._predict([image for _, image in group])
        except (RuntimeError, MemoryError, InputError) as error:
            if len(group) > 1:
                for single in group:
                    self._finish([single], report, bar)
                return
            report.failed.append((group[0][0].file, reason_of(error)))
            bar.update()
            return
        for (photo, image), (prediction, spread) in zip(group, predictions, strict=True):
            try:
                note = self._write(photo, image, prediction, spread)
                report.notes += [(photo.file, note)] if note else []
                report.num_predicted += 1
            except (OSError, InputError) as error:
                if isinstance(error, OSError) and concerns_all_files(error):
                    raise InputError(
                        f"--output {self.output} cannot be written to ({error.strerror}). What is there is complete: "
                        "make room, and the same command predicts the other images."
                    ) from error
                report.failed.append((photo.file, str(error)))
            bar.update()

    def _predict(self, images: list[np.ndarray]) -> Sequence[tuple[np.ndarray, np.ndarray | None]]:
        """Return predictions with their spread, if that is wanted."""
        if self.predictor.uncertainty is not None:
            return self.predictor.predict_with_spread(images)
        return [(prediction, None) for prediction in self.predictor.predict(images)]

    def _write(self, photo: Photo, image: np.ndarray, prediction: np.ndarray, spread: np.ndarray | None) -> str:
        """Write the results of an image, and return what is to be said of its anchors."""
        folder = self.output / photo.folder
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.resolve().is_relative_to(self.output.resolve()):
            raise InputError(f"{folder} is a link that leads out of {self.output}; nothing is written there.")
        if not np.isfinite(prediction).all():
            raise InputError("the prediction is not finite; try --precision float32.")
        metres, note = None, ""
        if self.metric is not None and photo.file in self.metric.anchors:
            metres, note = self.metric.write(photo.file, prediction, folder, photo.stem)
        makers = self._makers(photo)
        if makers:
            relative, camera, says = self._surface(photo, prediction, metres)
            note = "; ".join(filter(None, (note, says)))
            for ending, make in makers.items():
                write_whole(folder / f"{photo.stem}_{ending}", make(relative, image, camera))
        if spread is not None:
            write_uncertainty(self.predictor.modality, spread, folder, photo.stem)
        write_results(self.predictor.modality, prediction, folder, photo.stem, self.predictor.kind)
        return note

    def _surface(
        self, photo: Photo, prediction: np.ndarray, metres: np.ndarray | None
    ) -> tuple[np.ndarray, PointCloudCamera, str]:
        """Return what ``point_cloud`` needs, and what is to be said of the camera."""
        camera, says = self.camera, ""
        if self.camera_estimator is not None:
            metres, camera, says = self.camera_estimator.estimate(photo, prediction, metres, camera)
        if metres is not None:
            return *metric_range(metres, camera), says
        return camera.stretch(self.predictor.modality, prediction), camera, says

    def _makers(self, photo: Photo) -> dict[str, SurfaceMaker]:
        """Return what makes the further files of a photo, by their endings.

        Of a photo with anchors, millimetres are measured, and written with its metres: there is no second file of them.
        """
        is_measured = self.metric is not None and photo.file in self.metric.anchors
        names = [name for name in self.surface_files if not (is_measured and name == "millimetres")]
        return {ending: make for name in names for ending, make in SURFACE_FILES[name].items()}

    def _is_done(self, photo: Photo) -> bool:
        names = result_names(self.predictor.kind, photo.stem)
        names += self.metric.names(photo.file, photo.stem) if self.metric is not None else []
        if self.predictor.uncertainty is not None:
            names += result_names(f"{self.predictor.modality.name}_uncertainty", photo.stem)
        names += [f"{photo.stem}_{ending}" for ending in self._makers(photo)]
        return not self.overwrite and all((self.output / photo.folder / name).is_file() for name in names)


def _num_pixels(groups: Iterable[list[tuple[Photo, np.ndarray]]]) -> int:
    return sum(image.shape[0] * image.shape[1] for group in groups for _, image in group)


def reason_of(error: BaseException) -> str:
    """Say in one line why an image could not be predicted."""
    if is_lack_of_memory(error):
        return "out of memory; try a smaller --tile_size or --processing_res."
    return one_line(error, 300) or type(error).__name__
