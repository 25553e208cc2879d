"""Starting weights from a checkpoint of another run: of the diffusion estimator for the single-step one, or back."""

from typing import TYPE_CHECKING

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
    from lightning_modules.training.checkpoint_content import read_checkpoint  # slow to import

    path = given_path(file, "init_from")
    if path.is_dir():
        raise InputError(
            f"init_from {file}: this is a folder, not a checkpoint. Give a .ckpt file; an export or a base is given as "
            "the base of the network, model.init_args.network.init_args.base."
        )
    try:
        weights = read_checkpoint(path)["state_dict"]
        estimator.check_fits(weights)
    except InputError as error:
        raise InputError(f"init_from {file}: {error}") from error
    estimator.load_state_dict(weights, strict=False)
