"""Surface normals."""

from typing import Literal

import torch
from torch import Tensor

from geometry.angles import angle_deg
from geometry.batch import Target
from geometry.colorize import colorize_normals
from geometry.modalities.modality import Modality, StockPipeline, known_or
from geometry.normals import convert_frame

Frame = Literal["opengl", "dsine"]

# A stored vector of about unit length is a normal; anything else, such as zero, is unknown.
_MIN_SQUARED_LENGTH, _MAX_SQUARED_LENGTH = 0.25, 4.0
_SMALLEST_LENGTH = 1e-6
# The stock pipeline clips decoded normals to [-1, 1], which turns those beyond. Only their direction counts, so an
# exported decoder is made to output small numbers; a power of two changes no digit.
_EXPORTED_LENGTH = 2.0**-4


class Normals(Modality):
    """Surface normals: unit vectors in the camera frame x right, y up, z toward the viewer.

    Convention:
        The image for the VAE holds a normal's components as its three channels, in the frame of the network. A
        prediction is the decoded image divided by its length, in our frame.

    Args:
        frame: The camera frame that the network predicts normals in: opengl (x right, y up, z toward the viewer) is
            ours, and dsine (x left) that of the checkpoints of the paper's authors. Predictions are converted to ours.
    """

    name = "normals"
    title = "surface normals"
    num_channels = 3
    value_range = (-1.0, 1.0)
    meaning = "surface normals: unit vectors, x right, y up, z toward the viewer"
    may_store_nan = True
    stock_pipeline = StockPipeline(
        "MarigoldNormalsPipeline",
        {"prediction_type": "normals", "use_full_z_range": True},
        needs={"prediction_type": "normals", "use_full_z_range": True},
    )
    error_name = "mean_angle_deg"
    worst_error = 60.0

    def __init__(self, frame: Frame = "opengl") -> None:
        self.frame = frame

    def restore(self, values: Tensor, limits: tuple[float, float]) -> Target:
        """Return vectors of exactly unit length, known where they were stored with about that length."""
        x, y, z = values.split(1, dim=1)
        squared_length = (x * x).addcmul_(y, y).addcmul_(z, z)
        mask = (squared_length > _MIN_SQUARED_LENGTH) & (squared_length < _MAX_SQUARED_LENGTH)
        return Target(values.mul_(squared_length.rsqrt_()).masked_fill_(~mask, 0), mask)

    def mirror_(self, values: Tensor) -> None:
        """Turn the x axis around."""
        values[..., 0, :, :].neg_()

    def to_image(self, target: Target) -> Tensor:
        """Return the normals in the network's frame, zero where unknown."""
        return convert_frame(known_or(target.values, target.mask, 0.0), "opengl", self.frame)

    def from_image(self, decoded: Tensor) -> Tensor:
        """Return (B,3,H,W) float32 unit vectors in our frame."""
        decoded = decoded.float()
        return convert_frame(decoded / (decoded.norm(dim=1, keepdim=True) + 1e-5), self.frame, "opengl")

    def error(self, aligned: Tensor, target: Target) -> Tensor:
        """Return the angle in degrees."""
        return angle_deg(aligned.float(), target.values.float())

    def colorize(self, values: Tensor, mask: Tensor | None = None, limits: Tensor | None = None) -> Tensor:
        """Return the components as colours."""
        return colorize_normals(values, mask)

    def publish(self, prediction: Tensor) -> Tensor:
        """Return unit vectors."""
        return self.renormalize(prediction)

    def renormalize(self, published: Tensor) -> Tensor:
        """Return unit vectors."""
        return published / published.norm(dim=1, keepdim=True).clamp(min=_SMALLEST_LENGTH)

    def ensemble(self, members: Tensor) -> Tensor:
        """Return, pixel by pixel, the member that is closest to the mean direction.

        By the function of diffusers' pipeline.
        """
        from diffusers.pipelines.marigold.pipeline_marigold_normals import MarigoldNormalsPipeline

        combine = MarigoldNormalsPipeline.ensemble_normals
        return torch.cat([combine(image, output_uncertainty=False)[0] for image in members.unbind(dim=1)])

    def decoder_factors(self) -> tuple[float, float, float]:
        """Return factors to small numbers, and to our frame."""
        signs = convert_frame(torch.ones(3, 1, 1), self.frame, "opengl").flatten() * _EXPORTED_LENGTH
        x, y, z = signs.tolist()
        return x, y, z
