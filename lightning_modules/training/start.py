"""Starting weights from a checkpoint of another run: of the diffusion estimator for the single-step one, or back."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from geometry.errors import InputError
from geometry.paths import given_path

if TYPE_CHECKING:
    from lightning_modules.estimator import Estimator


def start_from(estimator: "Estimator", file: str) -> None:
    """Load the trained weights of a checkpoint, and nothing else of it: no optimiser, no step, no place in the data.

    Args:
        estimator: the estimator that takes the weights.
        file: checkpoint of any estimator on the same base.

    Raises:
        InputError: the file cannot be read, is no checkpoint, or does not fit the network.
    """
    if Path(file).expanduser().is_dir():
        raise InputError(
            f"init_from {file}: this is a folder, not a checkpoint. Give a .ckpt file; an export or a base is given as "
            "the base of the network, model.init_args.network.init_args.base."
        )
    try:
        checkpoint = torch.load(given_path(file, "init_from"), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # PyTorch's own message advises to load it unsafely
        raise InputError(f"init_from {file}: this is no checkpoint, or it holds more than plain values.") from error
    except (OSError, RuntimeError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"init_from {file}: the checkpoint cannot be read: {reason}") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise InputError(f"init_from {file}: this is no checkpoint of a run of this project.")
    try:
        estimator.check_fits(checkpoint["state_dict"])
    except InputError as error:
        raise InputError(f"init_from {file}: {error}") from error
    estimator.load_state_dict(checkpoint["state_dict"], strict=False)
