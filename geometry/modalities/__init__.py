"""The modalities: one file each. A new file here is known everywhere by the name of its class."""

from importlib import import_module
from pkgutil import iter_modules

from geometry.modalities.depth import Depth
from geometry.modalities.modality import Modality, modality_named, registered
from geometry.modalities.normals import Normals

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

# What data modules load and score where nobody says what: on the command line, the task does.
DEFAULT = Depth.name

__all__ = ["DEFAULT", "Depth", "Modality", "Normals", "modality_named", "registered"]
