"""The command ``onestep serve``: a web page for one model."""

import atexit
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from geometry.command_line import Command, Option, say_new_spelling
from geometry.errors import InputError
from lightning_modules.app.layout import build_page
from lightning_modules.app.origin import OwnOrigin
from lightning_modules.app.page import EXAMPLES, Page
from lightning_modules.command_line.console import quieten
from lightning_modules.inference.arguments import ModelChoice, find_run_configs
from lightning_modules.inference.predictor import Predictor
from lightning_modules.single_task import alone


@dataclass(frozen=True)
class PageOptions:
    """Page.

    Attributes:
        host: Address to listen on; 0.0.0.0 lets others in.
        allow_host: Further host names that the page is asked for by, for instance a proxy's; others are refused.
        port: Port to listen on.
        max_megapixels: Larger images are refused.
        max_upload_mb: Larger files are refused.
        processing_res: Processing resolution that is chosen at first; 0 is the image's own size. By default that of the
            training, which the model says.
        device: cpu, cuda, ...; auto takes a GPU where there is one.

    Raises:
        InputError: A limit leaves nothing.
    """

    host: str = "127.0.0.1"
    allow_host: Annotated[tuple[str, ...], Option(metavar="NAME")] = ()
    port: int = 7860
    max_megapixels: float = 50.0
    max_upload_mb: int = 50
    processing_res: Annotated[int | None, Option(metavar="PX")] = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.max_megapixels <= 0 or self.max_upload_mb <= 0:
            raise InputError("--max_megapixels and --max_upload_mb must be larger than 0.")


def serve(model: ModelChoice, page: PageOptions) -> None:
    """Show a web page for one model, until it is stopped.

    Args:
        model: Model.
        page: Page.
    """
    running = start(model, page)
    try:
        # Gradio's own waiting takes Ctrl-C for an end without an error.
        while running.is_running:
            time.sleep(0.2)
    finally:
        running.close(verbose=False)


def start(model: ModelChoice, options: PageOptions) -> Any:  # noqa: ANN401 - Gradio may be missing
    """Load the model and serve its page in threads of this process.

    Args:
        model: the model.
        options: of the page.

    Returns:
        The running page, whose ``local_url`` it is at.

    Raises:
        InputError: Gradio or the model is missing, or the address cannot be listened on.
    """
    try:
        import gradio  # noqa: F401
        from starlette.middleware import Middleware
    except ImportError as error:
        raise InputError("the page needs Gradio: pip install -e '.[app]'.") from error
    loaded = model.load()
    single = alone(loaded.estimator, model.modality)
    predictor = Predictor(single, options.processing_res, device=options.device)
    folder = Path(tempfile.mkdtemp(prefix="onestep-page-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    page = Page(predictor, round(options.max_megapixels * 1e6), folder)
    running = build_page(page, f"Model: `{loaded.taken or model.pretrained}`")
    try:
        running.launch(
            server_name=options.host,
            server_port=options.port,
            max_file_size=f"{options.max_upload_mb}mb",
            allowed_paths=[str(folder), str(EXAMPLES)],
            share=False,
            app_kwargs={"middleware": [Middleware(OwnOrigin, options.host, list(options.allow_host))]},
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise InputError(
            f"cannot listen on {options.host}:{options.port}; give another --port or --host. ({error})"
        ) from error
    return running


COMMAND = Command(serve, prepare_words=find_run_configs, before=quieten)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, as version 0.1 called it.

    Args:
        arguments: words after the program's name; those of this process by default.
    """
    return COMMAND.main(sys.argv[1:] if arguments is None else arguments, "onestep serve")


if __name__ == "__main__":
    say_new_spelling("python -m lightning_modules.app", "onestep serve")
    sys.exit(main())
