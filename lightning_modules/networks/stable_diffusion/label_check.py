"""Whether a base that takes class labels, or embeds the image in place of a prompt, gets what it was trained with."""

from typing import Any

from geometry.errors import InputError
from lightning_modules.networks.base_files import INDEX, Base
from lightning_modules.networks.config_checks import check_counts, named_class
from lightning_modules.networks.hub import read_index
from lightning_modules.networks.stable_diffusion.image_embedding import ENCODER
from lightning_modules.networks.task_switch import TaskSwitch
from lightning_modules.shipped import find_folder

# GeoWizard's pipeline, and the outputs of the switch that its checkpoints were trained with.
_GEOWIZARD, _OUTPUTS = "DepthNormalEstimationPipeline", ["normals", "depth"]


def embeds_image(name: str, switch: TaskSwitch | None) -> bool:
    """Return whether a base has an image encoder in place of the text encoder.

    Args:
        name: folder or hub id.
        switch: what its UNet is told; None where it takes no labels.

    Raises:
        InputError: it has, and is to be used without a switch, with which all such bases were trained.
    """
    if folder := find_folder(name):
        found = (folder / ENCODER).is_dir() and not (folder / "text_encoder").exists()
    elif switch is None:
        return False
    else:
        index = read_index(name).read_json(INDEX)
        found = bool(named_class(index, ENCODER)) and not named_class(index, "text_encoder")
    if found and switch is None:
        raise InputError(
            f"the base folder {name} cannot be used so: it embeds the image in place of a prompt, and takes class "
            "labels. Write the network.switch that it was trained with; configs/recipes/geowizard_e2e.yaml has "
            "GeoWizard's."
        )
    return found


def check_labels(base: Base, config: dict[str, Any], switch: TaskSwitch | None) -> None:
    """Check that a UNet that takes labels is given some, of the kind that there is.

    Args:
        base: the base.
        config: the UNet's.
        switch: what the UNet is told.

    Raises:
        InputError: it is told nothing, or wants to be told otherwise.
    """
    file, kind = "unet/config.json", config.get("class_embed_type")
    if kind is None or kind is False:
        return
    if kind != "projection":
        raise base.refusal(file, f"has class_embed_type: {kind!r}. Needed: projection, or none.")
    width = config.get("projection_class_embeddings_input_dim")
    if switch is None:
        raise base.refusal(
            file,
            f"has class_embed_type: {kind!r}: this UNet wants class labels of {width} numbers. Needed: the "
            "network.switch that it was trained with, for instance {outputs: [annotation, image]} for Lotus.",
        )
    check_counts(base, file, config, "projection_class_embeddings_input_dim")


def check_published_switch(base: Base, index: dict[str, Any], switch: TaskSwitch | None) -> None:
    """Check that a published model whose pipeline says how it was trained is told the same.

    Args:
        base: the base.
        index: content of its model_index.json.
        switch: what its UNet is told.

    Raises:
        InputError: it is told something else, or wants a prompt with words.
    """
    if index.get("_class_name") != _GEOWIZARD or switch is None:
        return
    if "text_encoder" in base.parts:
        raise base.refusal(
            INDEX,
            "is a second version of GeoWizard, which wants a prompt that names the domain; prompts with words are "
            "missing here. Needed: the first version, which embeds the image.",
        )
    if switch.outputs != _OUTPUTS or not switch.joint or switch.domain is None:
        raise base.refusal(
            INDEX,
            f"is GeoWizard. Needed: network.switch with outputs: [{', '.join(_OUTPUTS)}], joint: true and a domain.",
        )
