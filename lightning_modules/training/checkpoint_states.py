"""Whether the states in a checkpoint fit the trainer that is to go on from them."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from geometry.errors import InputError
from lightning_modules.lightning_internals import LOGGED_STEP

_NEEDED_TO_GO_ON = ("loops", "callbacks", "optimizer_states", "lr_schedulers", "global_step")
# States of the optimisers of PyTorch that have the shape of their weight.
_SHAPED_LIKE_WEIGHT = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer"}


def check_states(checkpoint: Mapping[str, Any], trainer: Trainer, module: LightningModule) -> None:
    """Check that the states of a checkpoint are such as this trainer saves.

    Args:
        checkpoint: its content, plain values of the right types.
        trainer: the trainer that is about to take the states.
        module: the estimator.

    Raises:
        InputError: a state is missing, or is not built like those that the trainer saves.
    """
    try:
        _check_states(checkpoint, trainer, [weight for weight in module.parameters() if weight.requires_grad])
    except ValueError as error:
        raise InputError(f"the checkpoint {trainer.ckpt_path} does not fit: {error}.") from error


def _check_states(checkpoint: Mapping[str, Any], trainer: Trainer, weights: Sequence[Tensor]) -> None:
    loops = {"fit": trainer.fit_loop, "validate": trainer.validate_loop, "test": trainer.test_loop}
    stage = trainer.state.fn.value if trainer.state.fn is not None else ""
    missing = [name for name in _NEEDED_TO_GO_ON if name not in checkpoint]
    if stage == "fit" and missing:
        raise ValueError(
            f"it lacks {', '.join(missing)}, so training cannot go on from it; init_from takes its weights alone"
        )
    if stage in loops and "loops" in checkpoint:
        _check_built_like(checkpoint["loops"].get(f"{stage}_loop"), loops[stage].state_dict(), f"loops/{stage}_loop")
    if stage != "fit":
        return
    loop = checkpoint["loops"]["fit_loop"]
    _check_built_like(loop.get("epoch_loop.state_dict"), {LOGGED_STEP: 0}, "epoch_loop.state_dict")
    data = loop["state_dict"].get("combined_loader", [])
    if not isinstance(data, list) or not all(isinstance(state, dict) for state in data):
        raise ValueError("loops/fit_loop/state_dict/combined_loader is no list of states of the data")
    for state in checkpoint["lr_schedulers"]:
        _check_built_like(state, {"last_epoch": 0}, "lr_schedulers")
    for state in checkpoint["optimizer_states"]:
        _check_optimizer(state, weights)


def _check_built_like(state: object, example: object, place: str) -> None:
    """Check that a state has the keys of an example that is right, further ones allowed, and values of its types."""
    if isinstance(example, dict):
        if not isinstance(state, dict):
            raise ValueError(f"{place} is no dictionary")
        for key, below in example.items():
            if key not in state:
                raise ValueError(f"{place} lacks {key}")
            _check_built_like(state[key], below, f"{place}/{key}")
    elif isinstance(example, bool | int) and not (type(state) is type(example) and int(state) >= 0):
        raise ValueError(f"{place} is no {'truth value' if isinstance(example, bool) else 'count'}")


def _check_optimizer(state: Mapping[str, Any], weights: Sequence[Tensor]) -> None:
    groups = [group.get("params") for group in state["param_groups"]]
    if not all(isinstance(group, list) for group in groups):
        raise ValueError("the groups of its optimiser have no params")
    numbers = [number for group in groups for number in group]
    if len(numbers) != len(weights) or set(numbers) != set(range(len(weights))):
        raise ValueError(f"its optimiser trained {len(numbers)} weights, but {len(weights)} train now")
    for number, values in state["state"].items():
        for name in _SHAPED_LIKE_WEIGHT & values.keys():
            fits = number in range(len(weights)) and isinstance(values[name], Tensor | None)
            if not fits or (values[name] is not None and values[name].shape != weights[number].shape):
                raise ValueError(f"{name} of weight {number} in its optimiser is no tensor of the weight's shape")
