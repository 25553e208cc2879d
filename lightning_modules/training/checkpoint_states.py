"""Whether the states in a checkpoint fit the trainer that is to go on from them."""

from collections.abc import Mapping
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
    found = _problem(checkpoint, trainer, module)
    if found:
        raise InputError(f"the checkpoint {trainer.ckpt_path} does not fit: {found}.")


def unlike(state: object, example: object, place: str) -> str | None:
    """Say where a state is not built like an example: a key is missing, or a value has another type.

    Args:
        state: nested dictionaries of plain values.
        example: a state that is right; keys beyond those of the example are allowed.
        place: what the state is called in the message.
    """
    if isinstance(example, dict):
        if not isinstance(state, dict):
            return f"{place} is no dictionary"
        missing = [str(key) for key in example if key not in state]
        if missing:
            return f"{place} lacks {missing[0]}"
        return next(filter(None, (unlike(state[key], example[key], f"{place}/{key}") for key in example)), None)
    if isinstance(example, bool | int) and not (type(state) is type(example) and int(state) >= 0):
        return f"{place} is no {'truth value' if isinstance(example, bool) else 'count'}"
    return None


def _problem(checkpoint: Mapping[str, Any], trainer: Trainer, module: LightningModule) -> str | None:
    loops = {"fit": trainer.fit_loop, "validate": trainer.validate_loop, "test": trainer.test_loop}
    stage = trainer.state.fn.value if trainer.state.fn is not None else ""
    if stage == "fit":
        missing = [name for name in _NEEDED_TO_GO_ON if name not in checkpoint]
        if missing:
            return f"it lacks {', '.join(missing)}, so training cannot go on from it; init_from takes its weights alone"
    if stage in loops and "loops" in checkpoint:
        state = checkpoint["loops"].get(f"{stage}_loop")
        if found := unlike(state, loops[stage].state_dict(), f"loops/{stage}_loop"):
            return found
    return _problem_of_training(checkpoint, module) if stage == "fit" else None


def _problem_of_training(checkpoint: Mapping[str, Any], module: LightningModule) -> str | None:
    loop = checkpoint["loops"]["fit_loop"]
    counted = unlike(loop.get("epoch_loop.state_dict"), {LOGGED_STEP: 0}, "epoch_loop.state_dict")
    data = loop["state_dict"].get("combined_loader", [])
    if not isinstance(data, list) or not all(isinstance(state, dict) for state in data):
        return "loops/fit_loop/state_dict/combined_loader is no list of states of the data"
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    schedules = (unlike(state, {"last_epoch": 0}, "lr_schedulers") for state in checkpoint["lr_schedulers"])
    optimizers = (_problem_of_optimizer(state, weights) for state in checkpoint["optimizer_states"])
    return next(filter(None, (counted, *schedules, *optimizers)), None)


def _problem_of_optimizer(state: Mapping[str, Any], weights: list[Any]) -> str | None:
    groups = [group.get("params") for group in state["param_groups"]]
    if not all(isinstance(group, list) for group in groups):
        return "the groups of its optimiser have no params"
    numbers = [number for group in groups for number in group]
    if len(numbers) != len(weights) or set(numbers) != set(range(len(weights))):
        return f"its optimiser trained {len(numbers)} weights, but {len(weights)} train now"
    for number, values in state["state"].items():
        for name in _SHAPED_LIKE_WEIGHT & values.keys():
            fits = number in range(len(weights)) and isinstance(values[name], Tensor | None)
            if not fits or (values[name] is not None and values[name].shape != weights[number].shape):
                return f"{name} of weight {number} in its optimiser is no tensor of the weight's shape"
    return None
