"""Starting weights from a checkpoint of another run: of the diffusion estimator for the single-step one, or back."""

import pickle

import torch
from lightning.pytorch import LightningModule

from geometry.errors import InputError


def start_from(estimator: LightningModule, file: str) -> None:
    """Load the trained weights of a checkpoint, and nothing else of it: no optimiser, no step, no place in the data.

    Args:
        estimator: the estimator that takes the weights.
        file: checkpoint of any estimator on the same base.

    Raises:
        InputError: the file cannot be read, is no checkpoint, or does not fit the network.
    """
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"init_from {file}: the checkpoint cannot be read: {reason}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise InputError(f"init_from {file}: this is no checkpoint of a run of this project.")
    try:
        estimator.on_load_checkpoint(checkpoint)
    except InputError as error:
        raise InputError(f"init_from {file}: {error}") from error
    estimator.load_state_dict(checkpoint["state_dict"], strict=False)
