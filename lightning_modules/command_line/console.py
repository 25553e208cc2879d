"""What a person at the terminal gets to read of Lightning and PyTorch: errors in one message, no noise."""

import logging
import threading
import warnings
from pathlib import Path

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from geometry.command_line.messages import mistake_behind
from geometry.errors import one_line
from geometry.files.storage import storage_problem
from lightning_modules.command_line.bars import is_bar_open, log_above_bars

_NO_NEWS = (
    "💡 Tip",
    "TPU available",
    "\nDetected KeyboardInterrupt",
    "`Trainer.fit` stopped: `max_",
)
# What Lightning does not say.
_NO_GPU = (
    "there is no GPU that PyTorch can use here (No supported gpu backend found). Set --trainer.accelerator auto or "
    "cpu; or, if the machine has one, install the driver and a PyTorch that was built for it."
)
_OWN_CODE = [
    Path(__file__).parents[2] / name for name in ("datamodules", "geometry", "lightning_modules", "synthetic_scenes")
]


def input_error_behind(error: BaseException) -> str | None:
    """Return the message of the user's mistake that an exception stands for, or None if it is a bug.

    Convention:
        What ``mistake_behind`` knows, and Lightning's ``MisconfigurationException``.

    Args:
        error: what was raised.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MisconfigurationException):
            return _NO_GPU if "No supported gpu backend found" in str(cause) else one_line(cause)
        cause = cause.__cause__
    return mistake_behind(error)


def quieten() -> None:
    """Hide advertisements and warnings that concern nobody who uses the project."""
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    rank_zero.addFilter(_is_news)
    for advertising in ("bitsandbytes.backends.cpu.ops", "torch.onnx._internal.exporter._registration"):
        logging.getLogger(advertising).setLevel(logging.ERROR)  # packages that nothing here needs
    threading.excepthook = _report_from_thread
    warnings.formatwarning = _plain_warning  # type: ignore[assignment]
    log_above_bars("lightning.pytorch", "lightning.fabric")
    for message, category in (
        (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
        (r"Found \d+ module\(s\) in eval mode at the start of training", UserWarning),
        (r"The number of training batches .* is smaller than the logging interval", UserWarning),
        (r"Total length of `list` across ranks is zero", UserWarning),  # a test whose data sets are all scored
        (r"Checkpoint directory .* exists and is not empty", UserWarning),
        (r"It is recommended to use `self.log\('val/.*sync_dist=True", UserWarning),
        (r"The '\w+' does not have many workers", UserWarning),  # our loaders say what theirs cost
        (r"Be aware that when using `ckpt_path`", UserWarning),
        (r"LightningCLI's args parameter is intended to run from within Python", UserWarning),
        (r"The `local_dir_use_symlinks` argument is deprecated", UserWarning),
        (r"No complete tensor found in the group", UserWarning),  # a program's weights, which are on the CPU
    ):
        warnings.filterwarnings("ignore", message=message, category=category)


def _report_from_thread(arguments: threading.ExceptHookArgs) -> None:
    """Be silent on a disk that a writer of curves finds full: the main thread hears of it, too, and says it once."""
    if arguments.exc_value is None or storage_problem(arguments.exc_value) is None:
        threading.__excepthook__(arguments)


def _plain_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object) -> str:
    """Return a warning as one line; those of this project without the place in the code, which helps nobody."""
    is_own = any(Path(filename).is_relative_to(folder) for folder in _OWN_CODE)
    start = "\n" if is_bar_open() else ""
    return start + (f"warning: {message}\n" if is_own else f"{filename}:{lineno}: {category.__name__}: {message}\n")


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_NO_NEWS)
