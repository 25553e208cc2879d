"""Two outputs of an editor for the price of one: what it says at the noisy latent's tokens and at the image's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from geometry.errors import InputError
from lightning_modules.networks.outputs import CleanLatent, Outputs


@dataclass(frozen=True)
class SequenceOutputs(Outputs):
    """The outputs of an editor whose sequence holds a noisy latent and then the image.

    The first is the clean latent of what is said at the noisy latent's tokens; the second is what is said at the
    image's tokens, taken as a clean latent as it is.

    Args:
        outputs: Two names, such as depth and normals.

    Raises:
        InputError: There are not two different ones.

    Source:
        Wang et al., "From Editor to Dense Geometry Estimator" (AMAP-ML/FE2E, infer/inference.py).
    """

    outputs: list[str]
    option = "network.outputs"

    def __post_init__(self) -> None:
        """Check the names."""
        self.check_names()
        if len(self.outputs) != 2:
            raise InputError(f"{self.option} needs two names, for the two parts of the sequence, got {self.outputs}.")

    def clean_latents(
        self,
        clean_latent: CleanLatent,
        image_latent: Tensor,
        noise: Tensor,
        given: Mapping[str, Tensor],
        outputs: Sequence[str],
        dataset: str | None = None,
    ) -> list[Tensor]:
        """Return the clean latents of outputs, of one evaluation: see ``Outputs``."""
        if unknown := [name for name in outputs if name not in self.outputs]:
            raise InputError(f"{self.option} {self.outputs} has no output {unknown[0]!r}. Name it there.")
        latents = clean_latent(image_latent, noise, given).chunk(2, dim=1)
        return [latents[self.outputs.index(name)] for name in outputs]
