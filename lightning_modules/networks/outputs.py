"""Several outputs of one network: the names by which tasks find them, and how their latents are computed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from geometry.errors import InputError

#: ``LatentNetwork.clean_latent``: image latent, noise and conditioning to the clean latent.
CleanLatent = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]

#: Name of the output of a network that has a single task.
ANNOTATION = "annotation"
#: Name of the output that reconstructs the image.
IMAGE = "image"


class Outputs(ABC):
    """Named outputs of a network.

    Attributes:
        outputs: their names.
        option: name of the option that says them.
    """

    outputs: list[str]
    option: str

    def check_names(self) -> None:
        """Check the names.

        Raises:
            InputError: one is there twice, or there is none.
        """
        if not self.outputs or len(set(self.outputs)) < len(self.outputs):
            raise InputError(f"{self.option} needs different names, at least one, got {self.outputs}.")

    @property
    def images_at_once(self) -> int:
        """How many images the denoiser sees at once, at least, for each that is predicted."""
        return 1

    def output_of(self, modality: str) -> str:
        """Return the name of the output that predicts a modality.

        Args:
            modality: its name.

        Raises:
            InputError: there is none.
        """
        for name in (modality, ANNOTATION):
            if name in self.outputs:
                return name
        raise InputError(
            f"{self.option} {self.outputs} has no output for {modality}. Name it there, or write {ANNOTATION} "
            "where the network has a single task."
        )

    @abstractmethod
    def clean_latents(
        self,
        clean_latent: CleanLatent,
        image_latent: Tensor,
        noise: Tensor,
        given: Mapping[str, Tensor],
        outputs: Sequence[str],
        dataset: str | None = None,
    ) -> list[Tensor]:
        """Return the clean latents of several outputs of a network.

        Args:
            clean_latent: method of the network.
            image_latent: (B,C,h,w), latent of the image.
            noise: (B,C,h,w), latent noise or zeros, the same for all outputs.
            given: what ``image_conditioning`` of the network returned.
            outputs: names of the wanted outputs.
            dataset: name of the data set that the images come from, where it is known.

        Returns:
            (B,C,h,w) per output, in their order.

        Raises:
            InputError: there is no such output.
        """
