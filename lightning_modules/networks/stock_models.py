"""Models in folders of stock pipelines, read by the family whose pipeline it is."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

from geometry.errors import InputError
from geometry.modalities import registered
from lightning_modules import networks
from lightning_modules.networks import code_folder as code_folder  # known by being defined
from lightning_modules.networks.base_files import INDEX
from lightning_modules.networks.hub import read_index
from lightning_modules.networks.latent_network import LatentNetwork
from lightning_modules.networks.pipeline_folder import PipelineModel, pipeline_folders


def known_networks() -> list[type[LatentNetwork]]:
    """Return the classes of networks: those of the families' folders, and those that are defined elsewhere."""
    for module in iter_modules(networks.__path__):
        if module.ispkg:
            import_module(f"{networks.__name__}.{module.name}")
    return list(_subclasses(LatentNetwork))


def read_pipeline_folder(source: str) -> PipelineModel:
    """Return the model of a folder that a stock pipeline of diffusers loads, by the family whose pipeline it is.

    Args:
        source: folder, or hub id.

    Raises:
        InputError: it cannot be read, or no family has such a pipeline.
    """
    name = read_index(source).read_json(INDEX).get("_class_name")
    match name:
        case [_, class_name]:  # file and class of a pipeline that the folder brings along
            name = class_name
    known_networks()
    formats = pipeline_folders()
    for found in formats:
        if name in found.pipelines:
            return found.read(source)
    titles = ", ".join(kind.title for kind in registered().values())
    pipelines = ", ".join(sorted(pipeline for found in formats for pipeline in found.pipelines))
    raise InputError(
        f"{source} is a {name}, which predicts none of {titles} here. Give a folder that export wrote, a model of one "
        f"of the pipelines {pipelines}, or a checkpoint."
    )


def _subclasses(kind: type[LatentNetwork]) -> Iterator[type[LatentNetwork]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
