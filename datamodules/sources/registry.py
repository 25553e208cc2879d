"""The data sets that can be prepared: each is registered by the function that makes it of options."""

import pkgutil
from collections.abc import Callable
from importlib import import_module
from typing import TypeVar

from datamodules.sources.protocol import RawDataset
from geometry.errors import InputError

Factory = TypeVar("Factory", bound=Callable[..., RawDataset])
_FACTORIES: dict[str, Callable[..., RawDataset]] = {}


def raw_dataset(factory: Factory) -> Factory:
    """Register what makes a raw data set: ``prepare`` has a command of its name, with its options.

    Args:
        factory: a function, or a dataclass that says its name in ``source``. Its typed parameters are the options, its
            docstring describes them.
    """
    _FACTORIES[getattr(factory, "source", factory.__name__)] = factory
    return factory


def raw_datasets() -> dict[str, Callable[..., RawDataset]]:
    """Return the functions by name: those of this package, and those that were registered elsewhere."""
    for module in pkgutil.iter_modules(import_module("datamodules.sources").__path__):
        import_module(f"datamodules.sources.{module.name}")
    return dict(_FACTORIES)


def raw_dataset_at(path: str) -> Callable[..., RawDataset]:
    """Return a function that makes a raw data set and stands outside this package.

    Args:
        path: module and name, for instance ``my_project.people.people``.

    Raises:
        InputError: there is no such function.
    """
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path} is no data set: {error}. Give MODULE.FUNCTION of a module on the Python path (PYTHONPATH)."
        ) from error
