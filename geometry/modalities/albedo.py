"""Albedo: the colour of surfaces without their lighting."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from geometry.batch import Target
from geometry.colorize import UNKNOWN_GREY
from geometry.modalities.modality import Modality, StockPipeline, known_or
from geometry.modalities.stored import Array, Size

# Black is an albedo, so what is unknown lies outside the possible values.
_UNKNOWN = -1.0
# A resized pixel has an albedo where at least this share of its area has one.
_MIN_COVERAGE = 0.5
GAMMA = 2.2
_TARGETS = {
    "target_properties": {
        "target_names": ["albedo"],
        "albedo": {"prediction_space": "linear", "up_to_scale": False},
    }
}


class Albedo(Modality):
    """Diffuse reflectance: the share of red, green and blue light that a surface scatters, linear, from 0 to 1.

    Convention:
        The image for the VAE holds the three shares, 0 as -1 and 1 as 1, as Marigold's decomposition of Hypersim does.
        Visualisations, and image files of 8 or 16 bits, hold them after gamma 1/2.2.
    """

    name = "albedo"
    title = "albedo"
    num_channels = 3
    meaning = "albedo: the share of red, green and blue light that a surface scatters, linear"
    unknown = _UNKNOWN
    possible_values = (0.0, 1.0)
    has_image_files = True
    stock_pipeline = StockPipeline(
        "MarigoldIntrinsicsPipeline",
        {"prediction_type": "intrinsics", **_TARGETS},
        needs=_TARGETS,
    )

    def is_known(self, values: Array) -> Array:
        """Return where no channel is negative."""
        return np.asarray((values >= 0).all(axis=0))

    def resize(self, values: Array, size: Size) -> Array:
        """Return albedo averaged over the known pixels that a new pixel covers.

        A new pixel of whose area less than half is known is unknown.
        """
        if values.shape[1:] == tuple(size):
            return values
        known = torch.from_numpy(self.is_known(values).astype(np.float32))[None, None]
        weighted = torch.cat([torch.from_numpy(values)[None] * known, known], dim=1)
        resized = interpolate(weighted, size, mode="bilinear", antialias=True, align_corners=False)[0]
        coverage = resized[3:]
        average = (resized[:3] / coverage.clamp(min=_MIN_COVERAGE)).clamp(0, 1)
        return torch.where(coverage >= _MIN_COVERAGE, average, _UNKNOWN).numpy()

    def read_file(self, numbers: Array) -> Array:
        """Return albedo: floating-point numbers are linear, whole numbers are colours after gamma 1/2.2."""
        values = super().read_file(numbers)
        return values if numbers.dtype.kind == "f" else values ** np.float32(GAMMA)

    def restore(self, values: Tensor, limits: tuple[float, float]) -> Target:
        """Return albedo that is known in all channels."""
        mask = ((values >= 0) & (values <= 1)).all(dim=1, keepdim=True)
        return Target(values.masked_fill_(~mask, 0), mask)

    def to_image(self, target: Target) -> Tensor:
        """Return the shares as an image in [-1, 1], mid grey where unknown."""
        return 2 * known_or(target.values, target.mask, 0.5) - 1

    def from_image(self, decoded: Tensor) -> Tensor:
        """Return (B,3,H,W) float32, nominally in [0, 1]."""
        return (decoded.float() + 1) / 2

    def colorize(self, values: Tensor, mask: Tensor | None = None, limits: Tensor | None = None) -> Tensor:
        """Return albedo as colours, after gamma 1/2.2."""
        colors = with_gamma(values.float())
        return colors if mask is None else torch.where(mask, colors, UNKNOWN_GREY)


def with_gamma(albedo: Tensor) -> Tensor:
    """Return linear albedo, clamped to [0, 1], after gamma 1/2.2."""
    return albedo.clamp(0, 1).pow(1 / GAMMA)
