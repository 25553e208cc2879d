"""Data: preparing raw data sets into shards, and streaming shards into batches.

The classes are imported when they are first asked for, so that the preparation commands and their worker processes do
not wait for Lightning.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datamodules.benchmarks.datamodule import Benchmarks
    from datamodules.geometry_datamodule import DatasetSource, GeometryDataModule

__all__ = ["Benchmarks", "DatasetSource", "GeometryDataModule"]

_MODULES = {
    "Benchmarks": "benchmarks.datamodule",
    "DatasetSource": "geometry_datamodule",
    "GeometryDataModule": "geometry_datamodule",
}


def __getattr__(name: str) -> type:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
