"""A web page for one model: ``python -m lightning_modules.app --model EXPORT``."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geometry.errors import InputError
from lightning_modules.command_line.console import leave
from lightning_modules.inference.arguments import add_model_arguments, load_from_arguments, parse
from lightning_modules.inference.mesh import glb_bytes
from lightning_modules.inference.pictures import read_picture
from lightning_modules.inference.point_cloud import PointCloudCamera, point_cloud
from lightning_modules.inference.predictor import DEFAULT_PROCESSING_RES, Predictor
from lightning_modules.inference.results import color_picture, npy_bytes, png16_bytes, write_whole

_RESOLUTIONS = (256, 384, 512, 768, 1024)
_MESH_POINTS = 40_000
_KEPT_RESULTS = 20
# Gradio keeps copies: how often it looks for old ones, and when they are old.
_CLEANING_S = (600, 3600)
_EXAMPLES = Path(__file__).with_name("examples")


class Page:
    """What the page does with an uploaded file.

    Args:
        predictor: the model.
        max_pixels: larger pictures are refused.
        folder: where downloads are kept while the page runs.
    """

    def __init__(self, predictor: Predictor, max_pixels: int, folder: Path) -> None:
        self.predictor = predictor
        self.max_pixels = max_pixels
        self.folder = folder

    def predict(self, file: str | None, processing_res: int) -> tuple[Any, ...]:
        """Return what the page shows: (picture, colours), the two downloads, the 3-D view, and a line of timings.

        Args:
            file: the uploaded file.
            processing_res: longest side in pixels at which the network sees the picture.

        Raises:
            InputError: the file is no picture, or too large.
        """
        if file is None:
            raise InputError("choose a picture first.")
        started_s = time.perf_counter()
        try:
            image = read_picture(file, self.max_pixels)
        except InputError as error:
            raise InputError(str(error).replace(str(file), Path(file).name)) from error
        read_s = time.perf_counter()
        self.predictor.processing_res = processing_res
        prediction = self.predictor(image)
        done_s = time.perf_counter()
        kind = self.predictor.kind
        for old in sorted(self.folder.iterdir(), key=lambda item: item.stat().st_mtime)[:-_KEPT_RESULTS]:
            shutil.rmtree(old, ignore_errors=True)
        target = Path(tempfile.mkdtemp(dir=self.folder))
        stem = Path(file).stem[:80]
        downloads = [target / f"{stem}_{kind}.npy", target / f"{stem}_{kind}.png"]
        write_whole(downloads[0], npy_bytes(prediction))
        write_whole(downloads[1], png16_bytes(kind, prediction))
        view = None
        if kind == "depth" and min(prediction.shape) > 1:
            view = target / "view.glb"
            write_whole(view, glb_bytes(*point_cloud(prediction, image, PointCloudCamera(), _MESH_POINTS)))
        timing = (
            f"{image.shape[1]} x {image.shape[0]} pixels; read in {read_s - started_s:.2f} s, predicted in "
            f"{done_s - read_s:.2f} s on {self.predictor.device}"
        )
        shown = (_for_screens(image), color_picture(kind, prediction))
        return (shown, *map(str, downloads), str(view) if view else None, timing)


def build_page(page: Page) -> Any:  # noqa: ANN401 - Gradio's types are not there without Gradio
    """Return the Gradio page."""
    import gradio

    def predict(file: str | None, processing_res: int) -> tuple[Any, ...]:
        try:
            return page.predict(file, int(processing_res))
        except InputError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from error

    kind = page.predictor.kind
    with gradio.Blocks(title=f"OneStep {kind}", analytics_enabled=False, delete_cache=_CLEANING_S) as blocks:
        gradio.Markdown(f"# OneStep: {kind} of a picture\nDrop a picture; it stays on this machine.")
        with gradio.Row():
            with gradio.Column(scale=1):
                upload = gradio.File(label="Picture", type="filepath", elem_id="upload")
                resolution = gradio.Dropdown(
                    list(_RESOLUTIONS),
                    value=page.predictor.processing_res,
                    label="Processing resolution (longest side, pixels)",
                    allow_custom_value=False,
                )
                button = gradio.Button("Predict", variant="primary", elem_id="predict")
                timing = gradio.Markdown(elem_id="timing")
                array = gradio.File(label="Array (.npy, float32)", elem_id="array")
                exact = gradio.File(label="16-bit PNG", elem_id="exact")
                examples = sorted(str(file) for file in _EXAMPLES.glob("*.jpg"))
                gradio.Examples(examples, upload, label="Examples", cache_examples=False)
            with gradio.Column(scale=2):
                slider = gradio.ImageSlider(label=f"Picture and {kind}", format="png", elem_id="pictures")
                view = gradio.Model3D(label="3-D view", visible=kind == "depth", elem_id="view")
        outputs = [slider, array, exact, view, timing]
        for event in (button.click, upload.upload):
            event(predict, [upload, resolution], outputs, concurrency_limit=1, concurrency_id="model")
    return blocks


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until it is stopped.

    Args:
        arguments: words after the program's name; those of this process by default.
    """
    try:
        options = parse(_parser(), sys.argv[1:] if arguments is None else arguments)
        try:
            import gradio  # noqa: F401
        except ImportError as error:
            raise InputError("the page needs Gradio: pip install -e '.[app]'.") from error
        predictor = Predictor(load_from_arguments(options).estimator, options.processing_res, device=options.device)
        with tempfile.TemporaryDirectory(prefix="onestep-page-") as folder:
            page = Page(predictor, round(options.max_megapixels * 1e6), Path(folder))
            build_page(page).launch(
                server_name=options.host,
                server_port=options.port,
                max_file_size=f"{options.max_upload_mb}mb",
                allowed_paths=[folder, str(_EXAMPLES)],
                share=False,
            )
    except InputError as error:
        leave(str(error))


def _for_screens(image: np.ndarray) -> np.ndarray:
    """Return a picture as uint8."""
    if image.dtype == np.uint8:
        return image
    return (image / (65535 if image.dtype.kind == "u" else 1) * 255).round().astype(np.uint8)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lightning_modules.app", description="A web page for one model.", allow_abbrev=False
    )
    add_model_arguments(parser)
    group = parser.add_argument_group("page")
    group.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in (default: %(default)s)"
    )
    group.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    group.add_argument(
        "--max-megapixels", type=float, default=50, help="larger pictures are refused (default: %(default)s)"
    )
    group.add_argument("--max-upload-mb", type=int, default=50, help="larger files are refused (default: %(default)s)")
    group.add_argument(
        "--processing-res",
        type=int,
        choices=_RESOLUTIONS,
        default=DEFAULT_PROCESSING_RES,
        help="processing resolution that is chosen at first (default: %(default)s)",
    )
    group.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU where there is one")
    return parser


if __name__ == "__main__":
    main()
