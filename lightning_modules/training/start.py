"""Starting weights from a checkpoint of another run: of another estimator, or of the stage before."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from geometry.errors import InputError
from geometry.files.paths import given_path
from lightning_modules.networks.lora import adapter_scale
from lightning_modules.training.run_folders import has_checkpoint, last_checkpoint, newest_run
from lightning_modules.training.trained_module import TrainedModule

# What losses train along, such as projectors, begins with this in checkpoints.
_LOSSES = "task."


def start_from(estimator: TrainedModule, file: str) -> None:
    """Load the trained weights of a checkpoint, and nothing else of it: no optimiser, no step, no place in the data.

    Convention:
        The network's weights must all be there, with one exception: a decoder that trains now and was frozen then
        begins as the base has it. Of what losses train along, what has the same name and shape is taken, for another
        stage may have other losses. Both are said in one line.

    Args:
        estimator: the estimator that takes the weights.
        file: checkpoint of any estimator on the same base, or a folder of runs, whose newest one's last is taken.

    Raises:
        InputError: the file cannot be read, is no checkpoint, or does not fit the network.
    """
    from lightning_modules.training.checkpoint_content import read_checkpoint  # slow to import

    path = start_file(file)
    try:
        checkpoint = read_checkpoint(path)
        stored = checkpoint["state_dict"]
        own = estimator.state_dict()
        weights = {name: weight for name, weight in stored.items() if not _is_of_loss(name) or _fits(name, weight, own)}
        frozen_then = _frozen_then(estimator, stored)
        estimator.check_fits(weights, frozen_then | {name for name in estimator.trained_names() if _is_of_loss(name)})
        _check_adapters(estimator, checkpoint.get("settings", {}))
    except InputError as error:
        raise InputError(f"init_from {file}: {error}") from error
    estimator.load_state_dict(weights, strict=False)
    remarks = _remarks(estimator.trained_names(), weights, stored, frozen_then)
    rank_zero_info(f"Training starts from the weights of {path}{remarks}.")


def start_file(file: str) -> Path:
    """Return the checkpoint that ``init_from`` means.

    Args:
        file: a checkpoint, the folder of a run, or the folder of all runs of one name.

    Raises:
        InputError: it is another kind of folder, or the newest checkpoint is damaged.
    """
    path = given_path(file, "init_from")
    if not path.is_dir():
        return path
    run = path if has_checkpoint(path) else newest_run(path)
    if run is None:
        raise InputError(
            f"init_from {file}: this is a folder without a run that has saved a checkpoint. Give a .ckpt file or the "
            "folder of a run; an export or a base is given as the base of the network, "
            "model.init_args.network.init_args.base."
        )
    return last_checkpoint(run)


def _is_of_loss(name: str) -> bool:
    return name.startswith(_LOSSES)


def _fits(name: str, weight: Tensor, own: Mapping[str, Tensor]) -> bool:
    return name in own and own[name].shape == weight.shape


def _frozen_then(estimator: TrainedModule, stored: Collection[str]) -> set[str]:
    """Return the names of the codec's trained weights, if the checkpoint holds none of the codec at all."""
    prefix = f"network.{estimator.network.codec.name}."
    if any(name.startswith(prefix) for name in stored):
        return set()
    return {name for name in estimator.trained_names() if name.startswith(prefix)}


def _check_adapters(estimator: TrainedModule, settings: Mapping[str, Any]) -> None:
    """Check that adapters count for as much as they did; their scale is in no weight."""
    own = adapter_scale(estimator.network.denoiser.model)
    rank = settings.get("model.network.lora.rank")
    if own is None or not isinstance(rank, int):
        return
    alpha = settings.get("model.network.lora.alpha") or rank
    if alpha / rank != own:
        raise InputError(
            f"its adapters were trained with lora.alpha {alpha} at rank {rank}; set lora.alpha to {alpha}."
        )


def _remarks(trained: set[str], taken: Collection[str], stored: Collection[str], frozen_then: set[str]) -> str:
    parts = []
    if frozen_then:
        parts.append(f"the decoder, frozen in that run, starts as the base has it ({len(frozen_then)} weights)")
    new = sum(_is_of_loss(name) and name not in taken for name in trained)
    if new:
        parts.append(f"{new} weights of losses begin anew")
    dropped = len(stored) - len(taken)
    if dropped:
        parts.append(f"{dropped} weights of that run's losses are not used")
    return "".join(f"; {part}" for part in parts)
