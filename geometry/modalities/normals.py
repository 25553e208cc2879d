"""Surface normals."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from geometry.angles import angle_deg
from geometry.batch import Target
from geometry.camera import pixel_rays
from geometry.colorize import colorize_normals
from geometry.errors import InputError
from geometry.modalities.codings import OctahedralDirections
from geometry.modalities.modality import Modality, StockPipeline, known_or
from geometry.modalities.stored import Array, Comparison, Facts, Size
from geometry.normals import convert_frame, normals_from_depth

Frame = Literal["opengl", "dsine", "opencv"]

# A stored vector of about unit length is a normal; anything else, such as zero, is unknown.
_MIN_SQUARED_LENGTH, _MAX_SQUARED_LENGTH = 0.25, 4.0
_SMALLEST_LENGTH = 1e-6
# float16 rounds a unit vector's length by less than this.
_UNIT_TOLERANCE = 2e-3
# A resized pixel has a normal where at least this share of its area has one.
_MIN_COVERAGE = 0.5
# Stored normals that differ from those computed from depth by more, in the median over a sample, are in another frame.
_MAX_ANGLE_DEG = 30.0
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
            ours, dsine (x left) that of the checkpoints of the paper's authors, and opencv (x right, y down, z forward)
            that of GeoWizard. Predictions are converted to ours.
    """

    name = "normals"
    title = "surface normals"
    num_channels = 3
    value_range = (-1.0, 1.0)
    meaning = "surface normals: unit vectors, x right, y up, z toward the viewer"
    may_store_nan = True
    counts_for_quality = False  # what is unknown in depth is unknown here, and edges beside
    compared_with = "depth"
    difference_unit = "degrees"
    coding = OctahedralDirections()
    stock_pipeline = StockPipeline(
        "MarigoldNormalsPipeline",
        {"prediction_type": "normals", "use_full_z_range": True},
        needs={"prediction_type": "normals", "use_full_z_range": True},
    )
    error_name = "mean_angle_deg"
    worst_error = 60.0
    spread_unit = "degrees"
    largest_spread = 180.0
    frame: Frame

    def __init__(self, frame: Frame = "opengl") -> None:
        self.frame = frame

    def numbers(self, values: Array, known: Array) -> Array:
        """Return nothing: the components say little."""
        return values[:0].reshape(-1)

    def describe(self, facts: Facts) -> dict[str, float | None]:
        """Return the share of known normals."""
        return {"normals_share": facts.share}

    def problems(self, values: Array, limits: tuple[float, float]) -> Iterator[str]:
        """Yield whether there are vectors of another length than one."""
        length = np.sqrt(np.square(values).sum(axis=0))
        if not np.isfinite(values).all() or ((length > 0) & (abs(length - 1) > _UNIT_TOLERANCE)).any():
            yield "normals are neither unit vectors nor zero"

    def resize(self, values: Array, size: Size) -> Array:
        """Return normals averaged over the known pixels that a new pixel covers, then made unit vectors again.

        A new pixel of whose area less than half is known is unknown.
        """
        import cv2

        if values.shape[1:] == tuple(size):
            return values
        known = (values[0] != 0) | (values[1] != 0) | (values[2] != 0)
        stacked = cv2.merge([*values, known.astype(np.float32)])
        shrinks = size[0] <= values.shape[1] and size[1] <= values.shape[2]
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        *components, coverage = cv2.split(cv2.resize(stacked, (size[1], size[0]), interpolation=interpolation))
        vectors = np.stack(components)
        length = np.sqrt(np.square(vectors).sum(axis=0))
        # Opposite normals that cancel leave no direction.
        usable = (coverage >= _MIN_COVERAGE) & (length > 1e-3)
        return np.where(usable, vectors / np.maximum(length, 1e-3), 0).astype(np.float32)

    def compare(self, targets: Mapping[str, Array], camera: Any, pixel_center: float) -> Comparison:  # noqa: ANN401
        """Compare the normals of a sample with those computed from its depth, by the angle in degrees."""
        depth = torch.from_numpy(targets["depth"].astype(np.float32))[None]
        stored = torch.from_numpy(targets[self.name].astype(np.float32))
        try:
            height, width = depth.shape[1:]
            rays = pixel_rays(torch.tensor(camera, dtype=torch.float64), height, width, float(pixel_center)).float()
        except (InputError, TypeError, ValueError) as error:
            return Comparison(problem=f"camera_from_pixel is of no use: {error}")
        computed, mask = normals_from_depth(depth, rays, depth > 0)
        both = mask[0] & (stored != 0).any(dim=0)
        if not both.any():
            return Comparison()
        cosine = (computed * stored).sum(dim=0)[both].clamp(-1, 1)
        angle_deg = float(torch.rad2deg(torch.acos(cosine)).median())
        if angle_deg <= _MAX_ANGLE_DEG:
            return Comparison(angle_deg)
        return Comparison(
            angle_deg,
            f"normals differ from those computed from depth by {angle_deg:.0f} degrees (median): are they in another "
            "frame, or is the camera another one?",
        )

    def restore(self, values: Tensor, limits: tuple[float, float]) -> Target:
        """Return vectors of exactly unit length, known where they were stored with about that length."""
        x, y, z = values.split(1, dim=1)
        squared_length = (x * x).addcmul_(y, y).addcmul_(z, z)
        mask = (squared_length > _MIN_SQUARED_LENGTH) & (squared_length < _MAX_SQUARED_LENGTH)
        return Target(values.mul_(squared_length.rsqrt_()).masked_fill_(~mask, 0), mask)

    def mirror_(self, values: Tensor) -> None:
        """Turn the x axis around."""
        values[..., 0, :, :].neg_()

    def turn(self, values: Tensor, rotation: Tensor) -> Tensor:
        """Return the vectors in the other frame."""
        return torch.einsum("ij,bjhw->bihw", rotation.to(values.dtype), values)

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

    def spread(self, members: Tensor) -> Tensor:
        """Return the standard deviation in degrees: the root mean square angle to the mean direction."""
        mean = self.renormalize(members.mean(dim=0))
        angles = torch.stack([angle_deg(member, mean) for member in members])
        return (angles.square().sum(dim=0) / (len(members) - 1)).sqrt()

    def calibration_error(self, aligned: Tensor, target: Target) -> Tensor:
        """Return the angle in degrees."""
        return self.error(aligned, target)

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
