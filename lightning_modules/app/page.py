"""What the web page shows, and what it does with an image; ``lightning_modules.app`` serves it."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from geometry.errors import InputError
from geometry.files.writing import write_whole
from geometry.modalities import Modality
from lightning_modules.inference.batch_run import reason_of
from lightning_modules.inference.image_inputs import read_image
from lightning_modules.inference.mesh import glb_bytes
from lightning_modules.inference.point_cloud import PointCloudCamera, point_cloud, stretched
from lightning_modules.inference.predictor import Predictor
from lightning_modules.inference.results import npy_bytes, png16_bytes, visualise

# Longest sides in pixels that can be chosen; 0 is the image's own size.
RESOLUTIONS = (256, 384, 512, 768, 1024, 0)
EXAMPLES = Path(__file__).parents[1] / "examples"
# Depth has no scale. A range of 1:3 looks like a room; more would blow up the distance.
_VIEW_CAMERA = PointCloudCamera(near_m=1.0, far_m=3.0)
_VIEW_POINTS = 100_000
_KEPT_RESULTS = 20
_MAX_STEM_BYTES = 120
# Gradio keeps copies: how often it looks for old ones, and when they are old.
_CLEANING_S = (600, 3600)


class Page:
    """What the page does with an uploaded file.

    Args:
        predictor: the model.
        max_pixels: larger images are refused.
        folder: where downloads are kept while the page runs.
    """

    def __init__(self, predictor: Predictor, max_pixels: int, folder: Path) -> None:
        self.predictor = predictor
        self.max_pixels = max_pixels
        self.folder = folder

    def predict(self, file: str | None, processing_res: int) -> tuple[Any, ...]:
        """Return what the page shows: (image, colours), the two downloads, the 3-D view, and a line of timings.

        Args:
            file: the uploaded file.
            processing_res: longest side in pixels at which the network sees the image; 0 is the image's own size.

        Raises:
            InputError: the file is no image, too large, or cannot be predicted.
        """
        if file is None:
            raise InputError("choose an image first.")
        started_s = time.perf_counter()
        try:
            image = read_image(file, self.max_pixels)
        except InputError as error:
            raise InputError(str(error).replace(str(file), Path(file).name)) from error
        read_s = time.perf_counter()
        self.predictor.processing_res = processing_res
        try:
            prediction = self.predictor(image)
        except (RuntimeError, MemoryError) as error:
            raise InputError(f"{Path(file).name} cannot be predicted: {reason_of(error)}") from error
        done_s = time.perf_counter()
        shown = (_for_screens(image), visualise(self.predictor.modality, prediction))
        files = self._write(_shortened(Path(file).stem), image, prediction)
        timing = (
            f"{image.shape[1]} x {image.shape[0]} pixels: read in {read_s - started_s:.2f} s, predicted in "
            f"{done_s - read_s:.2f} s on {self.predictor.device}, written in {time.perf_counter() - done_s:.2f} s"
        )
        return (shown, *files, timing)

    def _write(self, stem: str, image: np.ndarray, prediction: np.ndarray) -> tuple[str, str, str | None]:
        """Write array, PNG and 3-D view into a folder of their own; the oldest such folders are removed."""
        modality = self.predictor.modality
        for old in sorted(self.folder.iterdir(), key=lambda item: item.stat().st_mtime)[:-_KEPT_RESULTS]:
            shutil.rmtree(old, ignore_errors=True)
        target = Path(tempfile.mkdtemp(dir=self.folder))
        array, exact, view = (
            target / f"{stem}_{modality.name}.npy",
            target / f"{stem}_{modality.name}.png",
            target / "view.glb",
        )
        write_whole(array, npy_bytes(prediction))
        write_whole(exact, png16_bytes(modality, prediction))
        if not modality.has_surface or min(prediction.shape) < 2:
            return str(array), str(exact), None
        relative = stretched(modality, prediction, _VIEW_CAMERA)
        write_whole(view, glb_bytes(*point_cloud(relative, image, _VIEW_CAMERA, _VIEW_POINTS)))
        return str(array), str(exact), str(view)


def _shortened(stem: str) -> str:
    """Return a name to which endings can be added: file systems count bytes, of which a letter has up to four."""
    return stem.encode(errors="surrogateescape")[:_MAX_STEM_BYTES].decode(errors="ignore")


def build_page(page: Page, title: str) -> Any:  # noqa: ANN401 - Gradio's types are not there without Gradio
    """Return the Gradio page.

    Args:
        page: what it does.
        title: names the model.
    """
    import gradio

    def empty() -> tuple[Any, ...]:
        return (None, *(gradio.DownloadButton(value=None, interactive=False) for _ in range(2)), None, "")

    def predict(file: str | None, processing_res: int) -> tuple[Any, ...]:
        try:
            shown, *downloads, view, timing = page.predict(file, int(processing_res))
        except InputError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from error
        return (shown, *(gradio.DownloadButton(value=name, interactive=True) for name in downloads), view, timing)

    modality = page.predictor.modality
    with gradio.Blocks(title=f"OneStep {modality.title}", analytics_enabled=False, delete_cache=_CLEANING_S) as whole:
        gradio.Markdown(f"# {modality.title.capitalize()} in one step\n{title}. Images stay on this machine.")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                upload, resolution, button, timing, examples = _controls(gradio, page.predictor.processing_res)
            with gradio.Column(scale=2, min_width=400):
                outputs = [*_results(gradio, modality), timing]
        inputs = [upload, resolution]
        turn: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}  # one image at a time
        # What is shown is of the image that is named, also where an error follows.
        upload.clear(empty, None, outputs, api_visibility="private")
        button.click(predict, inputs, outputs, api_name="predict", **turn)
        uploaded = upload.upload(empty, None, outputs, queue=False, api_visibility="private")
        chosen = examples.click(empty, None, outputs, queue=False, api_visibility="private").then(
            lambda row: row[0], examples, upload, queue=False, api_visibility="private"
        )
        for ready in (uploaded, chosen):
            ready.then(predict, inputs, outputs, api_visibility="private", **turn)
    return whole


def _controls(gradio: Any, processing_res: int) -> tuple[Any, ...]:  # noqa: ANN401
    """Lay out what a person acts on: upload, resolution, button, line of timings, examples."""
    upload = gradio.File(label="Image", type="filepath", height=150, elem_id="upload")
    resolution = gradio.Dropdown(
        [(str(side) if side else "the image's own size", side) for side in _sides(processing_res)],
        value=processing_res,
        label="Processing resolution (longest side, pixels)",
    )
    button = gradio.Button("Predict", variant="primary", elem_id="predict")
    timing = gradio.Markdown(elem_id="timing")
    samples = [[str(file)] for file in sorted(EXAMPLES.glob("[!.]*.jpg"))]
    examples = gradio.Dataset(components=["image"], samples=samples, label="Examples", elem_id="examples")
    return upload, resolution, button, timing, examples


def _sides(own: int) -> list[int]:
    """Return the sides that can be chosen, the model's own among them, in order; 0 is the last."""
    return sorted({*RESOLUTIONS, own}, key=lambda side: side or 1 << 30)


def _results(gradio: Any, modality: Modality) -> tuple[Any, ...]:  # noqa: ANN401
    """Lay out what a person gets: images, array, PNG, 3-D view."""
    fixed: dict[str, Any] = {"interactive": False}
    slider = gradio.ImageSlider(
        label=f"Image and {modality.title}", format="png", height=400, elem_id="pictures", **fixed
    )
    with gradio.Row():
        array = gradio.DownloadButton("Array (.npy)", elem_id="array", **fixed)
        exact = gradio.DownloadButton("16-bit PNG", elem_id="exact", **fixed)
    view = gradio.Model3D(
        label="3-D view: drag to turn", visible=modality.has_surface, height=360, elem_id="view", **fixed
    )
    return slider, array, exact, view


def _for_screens(image: np.ndarray) -> np.ndarray:
    """Return an image as uint8."""
    if image.dtype == np.uint8:
        return image
    return (image / (65535 if image.dtype.kind == "u" else 1) * 255).round().astype(np.uint8)
