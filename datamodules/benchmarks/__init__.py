"""The benchmarks: each states its files and its protocol. A new file here is known by the names in it."""

from importlib import import_module
from pkgutil import iter_modules


def import_all() -> None:
    """Import every file of this folder, so that its benchmarks are registered."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
