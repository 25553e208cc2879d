"""What the trainer and the data of a run are set to, in a plan's terms: where a default stands, that of fit."""

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from geometry.errors import InputError
from geometry.jsonargparse_internals import parameters_of
from lightning_modules.training.strategy import FullySharded

# Whoever writes one of these leaves it to the machine how many devices there are.
_ALL_DEVICES = ("auto", "-1")
# Lightning's short names of precisions.
_SHORT = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
_BATCH_SIZE = 2  # of a configuration without data


def count(value: Any, name: str) -> int:  # noqa: ANN401 - whatever a configuration says
    """Return a number of at least 1.

    Args:
        value: what a configuration says.
        name: the option, for the message.

    Raises:
        InputError: it is no such number.
    """
    is_number = type(value) is int or (isinstance(value, str) and value.strip().isdecimal())
    if not is_number or int(value) < 1:
        raise InputError(f"{name}: {value} cannot be planned; give a number of at least 1.")
    return int(value)


def devices_of(trainer: Mapping[str, Any]) -> tuple[int, bool]:
    """Return the number of devices over all nodes, and whether it is assumed because the machine decides it.

    Args:
        trainer: options of the trainer.

    Raises:
        InputError: they are no number of devices.
    """
    nodes, devices = count(trainer.get("num_nodes", 1), "trainer.num_nodes"), trainer.get("devices", "auto")
    if str(devices) in _ALL_DEVICES:
        return nodes, trainer.get("accelerator") != "cpu"  # Lightning takes one CPU
    if isinstance(devices, str) and "," in devices:
        devices = [part.strip() for part in devices.split(",") if part.strip()]
    if isinstance(devices, list):  # each by its number
        if not devices or not all(str(each).isdecimal() for each in devices):
            raise InputError(f"trainer.devices: {devices} names no devices; give their number, or a list such as 0,1.")
        return nodes * len(devices), False
    return nodes * count(devices, "trainer.devices"), False


def strategy_of(trainer: Mapping[str, Any]) -> tuple[bool, dict[str, Any]]:
    """Return whether the weights are sharded, and the options of the strategy.

    Args:
        trainer: options of the trainer.

    Raises:
        InputError: it is a strategy that fit does not train with.
    """
    strategy = trainer.get("strategy", "auto")
    if isinstance(strategy, dict):
        kind = class_named(str(strategy.get("class_path")), "trainer.strategy")
        if issubclass(kind, SingleDeviceStrategy | DDPStrategy | FullySharded):
            return issubclass(kind, FullySharded), section(strategy.get("init_args"))
    elif str(strategy).partition("_")[0] in ("auto", "ddp"):
        return False, {}
    raise InputError(
        f"trainer.strategy: {strategy} cannot be planned; choose auto, ddp or {{class_path: "
        f"lightning_modules.{FullySharded.__name__}}}."
    )


def precision_of(trainer: Mapping[str, Any]) -> str:
    """Return the precision in Lightning's long names.

    Args:
        trainer: options of the trainer.
    """
    precision = trainer.get("precision")
    return "32-true" if precision is None else _SHORT.get(str(precision), str(precision))


def batch_sizes_of(data: Mapping[str, Any]) -> tuple[int, int | None]:
    """Return the images of a micro-batch on a device, and those of a batch of validation; None is as many.

    Args:
        data: the section of the data module.

    Raises:
        InputError: there is no such data module, or they are no numbers.
    """
    options, known = section(data.get("init_args")), _defaults(data_class(data))
    size = count(options.get("batch_size", known.get("batch_size", _BATCH_SIZE)), "data.batch_size")
    val_size = options.get("val_batch_size", known.get("val_batch_size"))
    return size, None if val_size is None else count(val_size, "data.val_batch_size")


def steps_of(trainer: Mapping[str, Any], default: int) -> int | None:
    """Return the number of optimiser steps of a run; None is not said, where epochs or time end it.

    Args:
        trainer: options of the trainer.
        default: of fit.
    """
    steps = trainer.get("max_steps", default)
    return None if str(steps) == "-1" else count(steps, "trainer.max_steps")


def section(value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever a configuration says
    """Return a section of a configuration with its interpolations resolved.

    Convention:
        A section that is missing is empty; one that refers to what is not there is returned as it is.

    Args:
        value: the section.
    """
    if not isinstance(value, dict):
        return {}
    try:
        found: Any = OmegaConf.to_container(OmegaConf.create(value), resolve=True)
    except OmegaConfBaseException:
        return value
    return found


def data_class(data: Mapping[str, Any]) -> type | None:
    """Return the class of the data module, or None where a configuration names none.

    Args:
        data: the section of the data module.
    """
    name = data.get("class_path")
    return None if name is None else class_named(str(name), "data.class_path")


def class_named(path: str, option: str) -> type:
    """Return a class by its path.

    Args:
        path: package, module and class, with points between.
        option: where it is given, for the message.

    Raises:
        InputError: there is no such class.
    """
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except (ImportError, ValueError):
        found = None
    if not isinstance(found, type):
        raise InputError(f"{option}: there is no class {path}; give its whole path, such as package.module.Class.")
    return found


def _defaults(kind: type | None) -> dict[str, Any]:
    parameters = parameters_of(kind) if kind else ()
    return {name: default for name, _, default in parameters if default is not inspect.Parameter.empty}
