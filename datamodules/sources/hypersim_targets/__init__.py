"""What Hypersim holds beside depth and normals: one file per modality, found by being here."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from datamodules.sources.hypersim_targets.reader import TargetReader


@cache
def readers() -> dict[str, TargetReader]:
    """Return the readers by modality, in order of their names."""
    found = {}
    for module in iter_modules(__path__):
        reader = getattr(import_module(f"{__name__}.{module.name}"), "READER", None)
        if isinstance(reader, TargetReader):
            found[reader.modality] = reader
    return found


__all__ = ["TargetReader", "readers"]
