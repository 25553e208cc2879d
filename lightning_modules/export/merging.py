"""How far a model is from itself once adapters have been merged into weights that were kept in 4 bits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lightning_modules.networks.latent_network import LatentNetwork


@dataclass(frozen=True)
class MergeDifference:
    """The difference of clean latents: from merged, dequantised weights, and from 4 bits with adapters beside them.

    Attributes:
        relative_maximum: largest absolute difference, as a share of the largest absolute value.
        relative_rms: root mean square of the differences, as a share of that of the values.
    """

    relative_maximum: float
    relative_rms: float

    def __str__(self) -> str:
        return (
            f"largest {self.relative_maximum:.2g} of the largest value, rms {self.relative_rms:.2g} of the values' rms"
        )


@torch.no_grad()
def merge_difference(network: LatentNetwork, images: Sequence[np.ndarray]) -> MergeDifference | None:
    """Return what merging the adapters changes, or None where the base is not kept in 4 bits.

    Args:
        network: the network as it was trained, on the CPU.
        images: (H,W,3) uint8 each; what is beyond whole multiples of the network's size is cut off.
    """
    if not network.denoiser.is_quantized:
        return None
    merged, expected, found = network.export_copy(), [], []
    for image in images:
        height, width = (side - side % network.size_multiple for side in image.shape[:2])
        values = torch.from_numpy(image[:height, :width].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
        expected.append(network.predict_latent(values).double().flatten())
        found.append(merged.predict_latent(values).double().flatten())
    values, differences = torch.cat(expected), torch.cat(found) - torch.cat(expected)
    return MergeDifference(
        float(differences.abs().max() / values.abs().max()),
        float(differences.square().mean().sqrt() / values.square().mean().sqrt()),
    )
