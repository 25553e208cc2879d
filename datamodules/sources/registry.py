"""The data sets that can be prepared: each is registered by the function that makes it of options."""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from datamodules.sources.protocol import RawDataset

Factory = TypeVar("Factory", bound=Callable[..., RawDataset])
_FACTORIES: dict[str, Callable[..., RawDataset]] = {}


def raw_dataset(factory: Factory) -> Factory:
    """Register a function that makes a raw data set: ``prepare`` has a command of its name, with its options.

    Args:
        factory: its typed parameters are the options, its docstring describes them.
    """
    _FACTORIES[factory.__name__] = factory
    return factory


def raw_datasets() -> dict[str, Callable[..., RawDataset]]:
    """Return the functions by name: those of this package, and those that were registered elsewhere."""
    for module in pkgutil.iter_modules(import_module("datamodules.sources").__path__):
        import_module(f"datamodules.sources.{module.name}")
    return dict(_FACTORIES)
