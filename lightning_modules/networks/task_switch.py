"""One network for several outputs: labels that tell a backbone which of them to give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from geometry.errors import InputError
from lightning_modules.networks.outputs import ANNOTATION, IMAGE, CleanLatent, Outputs

Domain = Literal["indoor", "outdoor", "object"]

#: Name of the labels in a denoiser's conditioning.
LABELS = "class_labels"


@dataclass(frozen=True)
class TaskSwitch(Outputs):
    """Which outputs a network has, and what it is told to give each of them.

    A label holds the sines and then the cosines of a unit vector that says which output is wanted; with a domain, those
    of a second unit vector for indoor, outdoor and object follow. The backbone adds an embedding of it to that of the
    timestep.

    Args:
        outputs: Names of the outputs in the order of the unit vector: those of the tasks' modalities, such as depth and
            normals; annotation for whatever a single task predicts; and image for the image itself, which is
            reconstructed in training to keep details (Lotus).
        joint: Give all outputs in one evaluation, in which the self-attention of each sees the others, too (GeoWizard).
            Otherwise each output has an evaluation of its own.
        domain: What images show where domains says nothing: indoor, outdoor or object. By default, labels say nothing
            of it.
        domains: What the images of a data set show, by the data set's name, for instance {virtual_kitti: outdoor}.

    Raises:
        InputError: An output is named twice or there is none, or a domain is unknown.
    """

    outputs: list[str] = field(default_factory=lambda: [ANNOTATION, IMAGE])
    joint: bool = False
    domain: Domain | None = None
    domains: dict[str, Domain] = field(default_factory=dict)
    option = "network.switch.outputs"

    def __post_init__(self) -> None:
        """Check the settings."""
        self.check_names()
        if self.domains and self.domain is None:
            raise InputError("network.switch.domains needs network.switch.domain, for the images of other data sets.")
        for domain in (*self.domains.values(), *([self.domain] if self.domain else [])):
            if domain not in get_args(Domain):
                raise InputError(f"network.switch knows no domain {domain!r}; choose one of {_DOMAINS}.")

    @property
    def width(self) -> int:
        """How many numbers a label has."""
        return 2 * len(self.outputs) + (2 * len(get_args(Domain)) if self.domain else 0)

    @property
    def images_at_once(self) -> int:
        """How many images the denoiser sees at once, at least, for each that is predicted."""
        return len(self.outputs) if self.joint else 1

    def labels(self, outputs: Sequence[str], dataset: str | None = None) -> Tensor:
        """Return what the backbone is told.

        Args:
            outputs: names of the wanted outputs.
            dataset: name of the data set that the images come from; None where they come from elsewhere.

        Returns:
            (number of outputs, width) float32.

        Raises:
            InputError: there is no such output.
        """
        rows = []
        for name in outputs:
            if name not in self.outputs:
                raise InputError(f"network.switch.outputs {self.outputs} has no output {name!r}. Name it there.")
            rows.append(_waves(self.outputs.index(name), len(self.outputs)))
        labels = torch.stack(rows)
        if self.domain is None:
            return labels
        domain = self.domains.get(dataset or "", self.domain)
        place = _waves(get_args(Domain).index(domain), len(get_args(Domain)))
        return torch.cat([labels, place.expand(len(labels), -1)], dim=1)

    def clean_latents(
        self,
        clean_latent: CleanLatent,
        image_latent: Tensor,
        noise: Tensor,
        given: Mapping[str, Tensor],
        outputs: Sequence[str],
        dataset: str | None = None,
    ) -> list[Tensor]:
        """Return the clean latents of outputs, computed as one batch: see ``Outputs``."""
        together = self.outputs if self.joint else list(outputs)
        labels = self.labels(together, dataset).to(image_latent.device, non_blocking=True)
        places = [together.index(name) for name in outputs]
        count = len(together)
        repeated = {name: tensor.repeat(count, *[1] * (tensor.ndim - 1)) for name, tensor in given.items()}
        repeated[LABELS] = labels.repeat_interleave(image_latent.shape[0], dim=0)
        images, noises = (tensor.repeat(count, 1, 1, 1) for tensor in (image_latent, noise))
        latents = clean_latent(images, noises, repeated).unflatten(0, (count, -1))
        return [latents[place] for place in places]


_DOMAINS = ", ".join(get_args(Domain))


def _waves(index: int, size: int) -> Tensor:
    unit = torch.zeros(size)
    unit[index] = 1
    return torch.cat([unit.sin(), unit.cos()])
