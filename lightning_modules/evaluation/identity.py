"""What scores depend on, condensed: equal identities give equal scores, so finished data sets need no second run."""

import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from lightning_modules.estimator import Estimator

# Options of every estimator that training alone depends on.
_TRAINING_OPTIONS = set(inspect.signature(Estimator.__init__).parameters) - {"self", "network", "task"}


def digest(value: Any) -> str:  # noqa: ANN401 - anything that JSON can hold
    """Return a short hash of a value."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def weights_digest(module: LightningModule) -> str:
    """Return a hash of a module's weights, or of what a module without weights says it stands for.

    Args:
        module: the module; its method ``fingerprint``, if it has one, is asked first.
    """
    own = getattr(module, "fingerprint", None)
    if own is not None:
        return digest(own())
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(module.state_dict().items()):
        state.update(name.encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return state.hexdigest()


def file_stamp(path: str | None) -> list[Any] | None:
    """Return where a checkpoint is, its size and when it was written; None without one.

    Args:
        path: the checkpoint.
    """
    if path is None or not Path(path).is_file():
        return None if path is None else [path]
    stat = Path(path).stat()
    return [str(Path(path).resolve()), stat.st_size, stat.st_mtime_ns]


def prediction_settings(model: dict[str, Any]) -> dict[str, Any]:
    """Return a model's configuration without what only training depends on.

    Args:
        model: class_path and init_args, as configured.
    """
    options = model.get("init_args") or {}
    kept = {name: value for name, value in options.items() if name not in _TRAINING_OPTIONS}
    return {"class_path": model.get("class_path"), "init_args": kept}
