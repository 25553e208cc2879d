"""What the web page does with an image; ``layout`` lays it out and ``onestep serve`` serves it."""

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from geometry.errors import InputError
from geometry.files.writing import write_whole
from lightning_modules.inference.anchored_metres import AnchoredMetres
from lightning_modules.inference.anchors import anchor_of
from lightning_modules.inference.batch_run import reason_of
from lightning_modules.inference.image_inputs import as_bytes, read_image
from lightning_modules.inference.mesh import glb_bytes
from lightning_modules.inference.point_cloud import PointCloudCamera, metric_range, point_cloud
from lightning_modules.inference.predictor import Predictor
from lightning_modules.inference.results import npy_bytes, png16_bytes, visualise
from lightning_modules.inference.surface_files import SURFACE_FILES, nearness

EXAMPLES = Path(__file__).parents[1] / "examples"
# Depth has no scale. A range of 1:3 looks like a room; more would blow up the distance.
NEAR_M, FAR_M = 1.0, 3.0
_VIEW_POINTS = 100_000
_THUMBNAIL_PX = 320
_KEPT_RESULTS = 20
_MAX_STEM_BYTES = 120
_ANCHOR_TOLERANCE = 0.1

# Told what happens, with the share that is done.
Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class Display:
    """How a prediction is shown and written: none of it needs another prediction.

    Attributes:
        near_white: show the nearest point white and the farthest black, in place of colours.
        near_m: depth of the nearest point, for view, meshes and millimetres.
        far_m: depth of the farthest point.
        anchors: points of known depth, one a line: x and y in pixels, and metres; they are used in place of the range.
    """

    near_white: bool = False
    near_m: float = NEAR_M
    far_m: float = FAR_M
    anchors: str = ""


@dataclass(frozen=True)
class Shown:
    """What the page shows of an image.

    Attributes:
        images: the image and its visualisation, (H,W,3) uint8.
        array: ``.npy`` file of the prediction.
        exact: 16-bit PNG of the prediction.
        further: files of a surface, as ``predict`` writes them.
        view: GLB file of the 3-D view; None for what is no surface.
        remarks: lines of timings, and of what was fitted to anchors.
    """

    images: tuple[np.ndarray, np.ndarray]
    array: str
    exact: str
    further: list[str]
    view: str | None
    remarks: str


@dataclass(frozen=True)
class _Predicted:
    """The last prediction, for which other ways to show it are asked."""

    key: tuple[str, int, int]
    image: np.ndarray = field(repr=False)
    prediction: np.ndarray = field(repr=False)
    timing: str


@dataclass(eq=False)
class Page:
    """What the page does with an uploaded file.

    Attributes:
        predictor: the model.
        max_pixels: larger images are refused.
        folder: where downloads are kept while the page runs.
        num_predictions: how often the network was run.
    """

    predictor: Predictor
    max_pixels: int
    folder: Path
    num_predictions: int = 0
    _last: _Predicted | None = None

    def thumbnail(self, file: str) -> np.ndarray:
        """Return a small copy of an uploaded image, (h,w,3) uint8.

        Args:
            file: the uploaded file.

        Raises:
            InputError: it is no image, or too large.
        """
        image = as_bytes(self._read(file))
        shrink = _THUMBNAIL_PX / max(*image.shape[:2], _THUMBNAIL_PX)
        size = [max(1, round(side * shrink)) for side in image.shape[1::-1]]
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA)

    def predict(
        self, file: str | None, processing_res: int, display: Display | None = None, progress: Progress | None = None
    ) -> Shown:
        """Return what the page shows of a file; the network runs only if the file or the resolution is another one.

        Args:
            file: the uploaded file.
            processing_res: longest side in pixels at which the network sees the image; 0 is the image's own size.
            display: how it is shown; as ``Display()`` by default.
            progress: told what happens.

        Raises:
            InputError: the file is no image, too large, or cannot be predicted; a range or anchors make no sense.
        """
        if file is None:
            raise InputError("choose an image first.")
        display = display or Display()
        camera = PointCloudCamera(near_m=display.near_m, far_m=display.far_m)
        tell = progress or (lambda share, what: None)
        last = self._predicted(file, processing_res, tell)
        tell(0.8, "writing files")
        started_s = time.perf_counter()
        modality, target, stem = self.predictor.modality, self._new_folder(), _shortened(Path(file).stem)
        array, exact = (target / f"{stem}_{modality.name}.{ending}" for ending in ("npy", "png"))
        write_whole(array, npy_bytes(last.prediction))
        write_whole(exact, png16_bytes(modality, last.prediction))
        colors, view, fit = visualise(modality, last.prediction), None, ""
        if modality.has_surface and min(last.prediction.shape) > 1:
            relative, camera, fit = self._scaled(last, display, camera, target / stem)
            view = self._write_surface(last.image, relative, camera, target / stem)
            if display.near_white:
                colors = as_bytes(np.repeat(nearness(relative)[..., None], 3, axis=2))
        timing = f"{last.timing}, written in {time.perf_counter() - started_s:.2f} s"
        further = sorted(str(path) for path in target.iterdir() if path not in (array, exact, view))
        return Shown(
            (as_bytes(last.image), colors),
            str(array),
            str(exact),
            further,
            str(view) if view else None,
            "\n\n".join(filter(None, (timing, fit))),
        )

    def _predicted(self, file: str, processing_res: int, tell: Progress) -> _Predicted:
        """Return the prediction for a file, the last one if it was for the same file and resolution."""
        key = (file, Path(file).stat().st_mtime_ns if Path(file).is_file() else 0, processing_res)
        if self._last is not None and self._last.key == key:
            return self._last
        tell(0.0, "reading the image")
        started_s = time.perf_counter()
        image = self._read(file)
        read_s = time.perf_counter()
        tell(0.1, f"predicting {image.shape[1]} x {image.shape[0]} pixels")
        self.predictor.processing_res = processing_res
        self.num_predictions += 1
        try:
            prediction = self.predictor(image)
        except (RuntimeError, MemoryError) as error:
            raise InputError(f"{Path(file).name} cannot be predicted: {reason_of(error)}") from error
        timing = (
            f"{image.shape[1]} x {image.shape[0]} pixels: read in {read_s - started_s:.2f} s, predicted in "
            f"{time.perf_counter() - read_s:.2f} s on {self.predictor.device}"
        )
        self._last = _Predicted(key, image, prediction, timing)
        return self._last

    def _read(self, file: str) -> np.ndarray:
        """Return an uploaded image; messages name it without the server's folders."""
        try:
            return read_image(file, self.max_pixels)
        except InputError as error:
            raise InputError(str(error).replace(str(file), Path(file).name)) from error

    def _scaled(
        self, last: _Predicted, display: Display, camera: PointCloudCamera, stem: Path
    ) -> tuple[np.ndarray, PointCloudCamera, str]:
        """Return relative depth, the range that it is relative to, and what is to be said of anchors."""
        modality = self.predictor.modality
        if not display.anchors.strip():
            return camera.stretch(modality, last.prediction), camera, ""
        file = Path(last.key[0])
        lines = display.anchors.replace(",", " ").replace(";", " ").strip().splitlines()
        anchors = [
            anchor_of(line.split(), f"known depths, line {number}") for number, line in enumerate(lines, start=1)
        ]
        fitted = AnchoredMetres(modality, {file: np.array(anchors)}, _ANCHOR_TOLERANCE)
        metres, sentence = fitted.write(file, last.prediction, stem.parent, stem.name)
        relative, measured = metric_range(metres, camera)
        return relative, measured, f"{measured.near_m:.3g} to {measured.far_m:.3g} m: {sentence}."

    def _write_surface(self, image: np.ndarray, relative: np.ndarray, camera: PointCloudCamera, stem: Path) -> Path:
        """Write what is made of depth, each file as ``predict`` does, and return the file of the 3-D view."""
        for makers in SURFACE_FILES.values():
            for ending, make in makers.items():
                write_whole(stem.with_name(f"{stem.name}_{ending}"), make(relative, image, camera))
        view = stem.with_name("view.glb")
        write_whole(view, glb_bytes(*point_cloud(relative, image, camera, _VIEW_POINTS)))
        return view

    def _new_folder(self) -> Path:
        """Return a folder for the files of one result; the oldest such folders are removed."""
        for old in sorted(self.folder.iterdir(), key=lambda item: item.stat().st_mtime)[:-_KEPT_RESULTS]:
            shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=self.folder))


def _shortened(stem: str) -> str:
    """Return a name to which endings can be added: file systems count bytes, of which a letter has up to four."""
    return stem.encode(errors="surrogateescape")[:_MAX_STEM_BYTES].decode(errors="ignore")
