"""A web page for one model: ``python -m lightning_modules.app --run runs/NAME``."""

import argparse
import atexit
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geometry.errors import InputError
from lightning_modules.command_line.console import leave, quieten
from lightning_modules.inference.arguments import add_model_arguments, load_from_arguments, parse
from lightning_modules.inference.predictor import Predictor
from lightning_modules.page import EXAMPLES, Page
from lightning_modules.page_layout import build_page
from lightning_modules.page_origin import OwnOrigin


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the page until it is stopped.

    Args:
        arguments: words after the program's name; those of this process by default.
    """
    quieten()
    try:
        options = parse(make_parser(), sys.argv[1:] if arguments is None else arguments)
        if options.max_megapixels <= 0 or options.max_upload_mb <= 0:
            raise InputError("--max-megapixels and --max-upload-mb must be larger than 0.")
        serve(options)
    except InputError as error:
        leave(str(error))
    except KeyboardInterrupt:
        print("Stopped.")


def serve(options: argparse.Namespace, is_waiting: bool = True) -> Any:  # noqa: ANN401 - Gradio may not be there
    """Load the model and serve its page.

    Args:
        options: of the command line.
        is_waiting: return only when the page is stopped, as a command does.

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
    model = load_from_arguments(options)
    predictor = Predictor(model.estimator, options.processing_res, device=options.device)
    folder = Path(tempfile.mkdtemp(prefix="onestep-page-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    page = Page(predictor, round(options.max_megapixels * 1e6), folder)
    running = build_page(page, f"Model: `{model.taken or options.model}`")
    try:
        running.launch(
            server_name=options.host,
            server_port=options.port,
            max_file_size=f"{options.max_upload_mb}mb",
            allowed_paths=[str(folder), str(EXAMPLES)],
            share=False,
            app_kwargs={"middleware": [Middleware(OwnOrigin, options.host, options.allow_host)]},
            prevent_thread_lock=not is_waiting,
        )
    except OSError as error:
        raise InputError(
            f"cannot listen on {options.host}:{options.port}; give another --port or --host. ({error})"
        ) from error
    return running


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = argparse.ArgumentParser(
        prog="python -m lightning_modules.app", description="A web page for one model.", allow_abbrev=False
    )
    add_model_arguments(parser)
    group = parser.add_argument_group("page")
    group.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in (default: %(default)s)"
    )
    group.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="further host name that the page is asked for by, for instance a proxy's; others are refused. May be "
        "given several times",
    )
    group.add_argument("--port", type=int, default=7860, help="port to listen on (default: %(default)s)")
    group.add_argument(
        "--max-megapixels", type=float, default=50, help="larger images are refused (default: %(default)s)"
    )
    group.add_argument("--max-upload-mb", type=int, default=50, help="larger files are refused (default: %(default)s)")
    group.add_argument(
        "--processing-res",
        type=int,
        metavar="PX",
        help="processing resolution that is chosen at first; 0 is the image's own size. By default that of the "
        "training, which the model says",
    )
    group.add_argument("--device", default="auto", help="cpu, cuda, ...; auto takes a GPU where there is one")
    return parser


if __name__ == "__main__":
    main()
