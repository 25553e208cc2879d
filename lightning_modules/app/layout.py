"""How the web page looks: controls, results, and what happens at which of them."""

from functools import partial
from typing import Any

from geometry.errors import InputError
from geometry.modalities import Modality
from lightning_modules.app.page import EXAMPLES, FAR_M, NEAR_M, Display, Page
from lightning_modules.inference.predictor import Predictor

# Longest sides in pixels that can be chosen; 0 is the image's own size.
RESOLUTIONS = (256, 384, 512, 768, 1024, 0)
_STYLES = ("colours: near is bright", "grey: near is white")
# Gradio keeps copies: how often it looks for old ones, and when they are old.
_CLEANING_S = (600, 3600)
# The 3-D view is as wide as its place also on phones, and turns at a touch in place of scrolling the page.
_SHEET = """
#view canvas {width: 100% !important; height: 360px !important; touch-action: none}
#thumbnail img {object-fit: contain}
footer {display: none !important}
"""


def build_page(page: Page, title: str) -> Any:  # noqa: ANN401 - Gradio's types are not there without Gradio
    """Return the Gradio page.

    Args:
        page: what it does.
        title: names the model.
    """
    import gradio

    modality = page.predictor.modality

    def predict(
        file: str | None,
        processing_res: int,
        style: str = _STYLES[0],
        near_m: float = NEAR_M,
        far_m: float = FAR_M,
        anchors: str = "",
        progress: Any = gradio.Progress(),  # noqa: ANN401, B008 - how Gradio is asked for it
    ) -> tuple[Any, ...]:
        try:
            display = Display(style == _STYLES[1], near_m or NEAR_M, far_m or FAR_M, anchors or "")
            shown = page.predict(file, int(processing_res), display, lambda share, what: progress(share, desc=what))
        except InputError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from error
        buttons = (gradio.DownloadButton(value=name, interactive=True) for name in (shown.array, shown.exact))
        return (shown.images, *buttons, shown.further or None, shown.view, shown.remarks)

    def again(file: str | None, *options: Any) -> tuple[Any, ...]:  # noqa: ANN401
        return predict(file, *options) if file else _nothing(gradio)

    with gradio.Blocks(title=f"OneStep {modality.title}", analytics_enabled=False, delete_cache=_CLEANING_S) as whole:
        gradio.HTML(f"<style>{_SHEET}</style>", padding=False)
        gradio.Markdown(f"# {modality.title.capitalize()} in one step\nImages stay on this machine. {title}")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                upload, small, resolution, button, timing, examples = _controls(gradio, page.predictor)
                style, near_m, far_m, anchors = _display_controls(gradio, modality)
            with gradio.Column(scale=2, min_width=320):
                outputs = [*_results(gradio, modality), timing]
        inputs = [upload, resolution, style, near_m, far_m, anchors]
        # One image at a time.
        turn: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model", "show_progress_on": outputs[0]}
        hidden: dict[str, Any] = {"api_visibility": "private"}
        # What is shown is of the image that is named, also where an error follows.
        upload.clear(lambda: (*_nothing(gradio), gradio.Image(visible=False)), None, [*outputs, small], **hidden)
        button.click(predict, inputs, outputs, api_name="predict", **turn)
        uploaded = upload.upload(lambda: _nothing(gradio), None, outputs, queue=False, **hidden)
        chosen = examples.click(lambda: _nothing(gradio), None, outputs, queue=False, **hidden).then(
            lambda row: row[0], examples, upload, queue=False, **hidden
        )
        for ready in (uploaded, chosen):
            ready.then(partial(_thumbnail, gradio, page), upload, small, queue=False, **hidden).then(
                predict, inputs, outputs, **hidden, **turn
            )
        for changed in (style.change, near_m.submit, far_m.submit, near_m.blur, far_m.blur, anchors.blur):
            changed(again, inputs, outputs, **hidden, **turn)
    return whole


def _nothing(gradio: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Return what the outputs show before there is a result."""
    return (None, *(gradio.DownloadButton(value=None, interactive=False) for _ in range(2)), None, None, "")


def _thumbnail(gradio: Any, page: Page, file: str | None) -> Any:  # noqa: ANN401
    """Return what stands for the upload; nothing where it is no image, which the prediction that follows says."""
    try:
        return gradio.Image(value=page.thumbnail(file), visible=True) if file else gradio.Image(visible=False)
    except InputError:
        return gradio.Image(visible=False)


def _controls(gradio: Any, predictor: Predictor) -> tuple[Any, ...]:  # noqa: ANN401
    """Lay out what a person acts on: upload, its thumbnail, resolution, button, line of timings, examples."""
    trained = predictor.trained_on
    upload = gradio.File(label="Image", type="filepath", height=150, elem_id="upload")
    small = gradio.Image(
        visible=False, interactive=False, show_label=False, height=150, buttons=[], elem_id="thumbnail"
    )
    samples = [[str(file)] for file in sorted(EXAMPLES.glob("[!.]*.jpg"))]
    examples = gradio.Dataset(components=["image"], samples=samples, label="Examples", elem_id="examples")
    sides = sorted({*RESOLUTIONS, predictor.processing_res}, key=lambda side: side or 1 << 30)  # 0 is the last
    resolution = gradio.Dropdown(
        [(str(side) if side else "the image's own size", side) for side in sides],
        value=predictor.processing_res,
        label="Processing resolution (longest side, pixels)",
        info=f"Trained at {trained.sizes_text()}" if trained and trained.image_sizes else None,
    )
    button = gradio.Button("Predict", variant="primary", elem_id="predict")
    timing = gradio.Markdown(elem_id="timing")
    return upload, small, resolution, button, timing, examples


def _display_controls(gradio: Any, modality: Modality) -> tuple[Any, ...]:  # noqa: ANN401
    """Lay out what changes the files and the view of a surface, and not the prediction."""
    with gradio.Accordion("Display and metres", open=False, visible=modality.has_surface, elem_id="display"):
        style = gradio.Radio(_STYLES, value=_STYLES[0], show_label=False, elem_id="style")
        with gradio.Row():
            near_m = gradio.Number(NEAR_M, label="Nearest (m)", minimum=0, min_width=100, elem_id="near")
            far_m = gradio.Number(FAR_M, label="Farthest (m)", minimum=0, min_width=100, elem_id="far")
        anchors = gradio.Textbox(
            "",
            label="Known depths: x y metres",
            info="One point a line, pixels from the top left corner. With two or more, depth is in metres.",
            lines=3,
            elem_id="anchors",
        )
    return style, near_m, far_m, anchors


def _results(gradio: Any, modality: Modality) -> tuple[Any, ...]:  # noqa: ANN401
    """Lay out what a person gets: images, array, PNG, further files, 3-D view."""
    fixed: dict[str, Any] = {"interactive": False}
    slider = gradio.ImageSlider(
        label=f"Image and {modality.title}", format="png", max_height=480, elem_id="pictures", **fixed
    )
    with gradio.Row():
        array = gradio.DownloadButton("Array (.npy)", min_width=120, elem_id="array", **fixed)
        exact = gradio.DownloadButton("16-bit PNG", min_width=120, elem_id="exact", **fixed)
    view = gradio.Model3D(
        label="3-D view: drag to turn", visible=modality.has_surface, height=360, elem_id="view", **fixed
    )
    further = gradio.File(
        label="Further files: meshes (GLB, PLY), points, near is white, millimetres",
        file_count="multiple",
        visible=modality.has_surface,
        elem_id="further",
        **fixed,
    )
    return slider, array, exact, further, view
