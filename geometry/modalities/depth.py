"""Depth along the optical axis, predicted up to scale and shift."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from geometry.alignment import align_scale_shift
from geometry.alignment.members import align_members
from geometry.batch import Target
from geometry.colorize import colorize_depth
from geometry.errors import InputError
from geometry.masked import masked_quantiles
from geometry.modalities.modality import Modality, StockPipeline, known_or, three_channels, unit_range
from geometry.modalities.stored import Array, Facts
from geometry.parameterization import Parameterization, ParameterizationName

_COLORED_QUANTILES = (0.02, 0.98)
_LARGEST_RATIO = 1000.0


class Depth(Modality):
    """Planar depth in metres, learned and predicted up to a scale and a shift per image.

    Convention:
        The image for the VAE holds g(depth) in three equal channels, g being the parameterisation: with the defaults,
        depth itself, whose 2 % quantile is -1, whose 98 % quantile is 1. What is unknown is far. A prediction is the
        mean of the decoded channels, clamped to [-1, 1]: g(depth) up to scale and shift. Beside a truth, scale and
        shift are fitted in the space of g, and g is undone; without one, g is undone as if the farthest were
        ``far_over_near`` times as far as the nearest. Published, 0 is nearest and 1 farthest.

    Args:
        parameterization: What the network learns of depth D: linear is D, log is ln(D + eps_m), sqrt the square root of
            D, disparity 1 / (D + eps_m), and sqrt_disparity its square root.
        low_quantile: Quantile of an image's g(depth) that the network knows as -1.
        high_quantile: Quantile of an image's g(depth) that the network knows as 1.
        eps_m: Added to depth before a logarithm or an inverse, in metres.
        clip_target: Clamp what is beyond the quantiles in the image for the VAE; the truth of metrics is never clamped.
        clip_prediction: Clamp predictions to [-1, 1]. What is clamped has no gradient.
        far_over_near: How many times as far as the nearest the farthest is taken to be where no truth says it; used to
            publish predictions that are not linear. Point clouds have a range of their own.

    Raises:
        InputError: An option is out of range.
    """

    name = "depth"
    title = "depth"
    num_channels = 1
    unit = "m"
    possible_values = (0.0, math.inf)
    meaning = "relative depth: 0 is nearest, 1 farthest, unknown up to scale and shift"
    has_surface = True
    varies_by_image = True
    error_name = "abs_rel"
    spread_unit = "m"
    ends = ("near", "far")
    stock_pipeline = StockPipeline(
        "MarigoldDepthPipeline",
        {"prediction_type": "depth", "scale_invariant": True, "shift_invariant": True},
        tag="depth-estimation",
        needs={"prediction_type": "depth"},
    )

    def __init__(
        self,
        parameterization: ParameterizationName = "linear",
        low_quantile: float = 0.02,
        high_quantile: float = 0.98,
        eps_m: float = 1e-6,
        clip_target: bool = True,
        clip_prediction: bool = True,
        far_over_near: float = 10.0,
    ) -> None:
        if not 0 <= low_quantile < high_quantile <= 1:
            raise InputError(
                f"depth needs 0 <= low_quantile < high_quantile <= 1, got {low_quantile}, {high_quantile}."
            )
        if not 1 < far_over_near <= _LARGEST_RATIO:
            raise InputError(f"depth needs 1 < far_over_near <= {_LARGEST_RATIO:g}, got {far_over_near}.")
        self.parameterization = Parameterization(parameterization, eps_m)
        self.quantiles = (low_quantile, high_quantile)
        self.clip_target, self.clip_prediction = clip_target, clip_prediction
        self.far_over_near = far_over_near

    def is_known(self, values: Array) -> Array:
        """Return where depth is positive."""
        return values > 0

    def describe(self, facts: Facts) -> dict[str, float | None]:
        """Return facts, the share as ``valid_share``."""
        described = super().describe(facts)
        return {"valid_share": described.pop(f"{self.name}_share"), **described}

    def problems(self, values: Array, limits: tuple[float, float]) -> Iterator[str]:
        """Yield numbers that are no depths, and depths beyond the planes."""
        known = values[self.is_known(values)]
        if not np.isfinite(values).all() or (values < 0).any():
            yield "depth holds NaN, infinite or negative numbers"
        elif known.size and (known.min() < limits[0] or known.max() > limits[1]):
            yield f"depth from {known.min():.4g} m to {known.max():.4g} m leaves the near and far plane"

    def restore(self, values: Tensor, limits: tuple[float, float]) -> Target:
        """Return depth that is known between near and far plane, and positive."""
        near, far = limits
        mask = (values >= near) & (values <= far) & (values > 0)
        return Target(values.masked_fill_(~mask, 0), mask)

    def to_image(self, target: Target) -> Tensor:
        """Return g(depth) between its outer quantiles, far where unknown."""
        values, mask = self.as_predicted(target)
        values = known_or(values, mask, 0.0)
        low, high = (bound[:, None, None, None] for bound in masked_quantiles(values, mask, self.quantiles))
        span = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        relative = 2 * ((values.clamp(low, high) if self.clip_target else values) - low) / span - 1
        return three_channels(torch.where(mask, relative, -1.0 if self.parameterization.falls else 1.0))

    def from_image(self, decoded: Tensor) -> Tensor:
        """Return (B,1,H,W) float32, in [-1, 1] unless ``clip_prediction`` is off."""
        prediction = decoded.float().mean(dim=1, keepdim=True)
        return prediction.clamp(-1, 1) if self.clip_prediction else prediction

    def as_predicted(self, target: Target) -> Target:
        """Return g of the truth."""
        return self.parameterization.of_target(target)

    def align(self, prediction: Tensor, target: Target) -> Tensor:
        """Return depth in metres after the scale and shift per image that fit g of the truth best."""
        return self.parameterization.align(prediction, target)

    def undo(self, prediction: Tensor, target: Target) -> Tensor:
        """Return a linear prediction as it is, any other after ``align``: without the truth, g cannot be undone."""
        return prediction if self.parameterization.is_linear else self.align(prediction, target)

    def error(self, aligned: Tensor, target: Target) -> Tensor:
        """Return the error relative to the true depth."""
        return (aligned - target.values).abs() / torch.where(target.mask, target.values, 1.0)

    def colorize(self, values: Tensor, mask: Tensor | None = None, limits: Tensor | None = None) -> Tensor:
        """Return near bright and warm, far dark and blue."""
        if limits is None:
            return colorize_depth(values, mask)
        masks = [None] * len(values) if mask is None else mask.split(1)
        images = zip(values.split(1), masks, limits.tolist(), strict=True)
        return torch.cat([colorize_depth(image, known, *near_far) for image, known, near_far in images])

    def color_limits(self, target: Target) -> Tensor:
        """Return the outer quantiles of each image's known depth; 0 and 1 where none is known."""
        return torch.stack([_limits_of(*image) for image in zip(*target, strict=True)])

    def publish(self, prediction: Tensor) -> Tensor:
        """Return depth in [0, 1], as if the farthest were ``far_over_near`` times as far as the nearest."""
        if self.clip_prediction and self.parameterization.is_linear:
            return unit_range(prediction)
        share = unit_range(prediction).clamp(0, 1)
        return self.parameterization.to_relative(self.parameterization.rising(share), self.far_over_near)

    def to_affine(self, published: Tensor) -> Tensor:
        """Return the share of the way from the nearest to the farthest in g, which parts of an image differ in."""
        return self.parameterization.to_share(published, self.far_over_near)

    def from_affine(self, affine: Tensor) -> Tensor:
        """Return depth in [0, 1]."""
        return self.parameterization.to_relative(affine, self.far_over_near)

    def stretch(self, published: Tensor, far_over_near: float) -> Tensor:
        """Return depth in [0, 1] as it would be published with another ``far_over_near``."""
        return self.parameterization.to_relative(self.to_affine(published), far_over_near)

    def describe_published(self) -> str:
        """Return what published depth means, with what has been undone."""
        if self.parameterization.is_linear:
            return self.meaning
        return (
            f"relative depth: 0 is nearest, 1 farthest. The network predicts depth as {self.parameterization.name}, "
            f"known up to scale and shift; that is undone as if the farthest were {self.far_over_near:g} times as far "
            "as the nearest"
        )

    def describe_stock_mismatch(self) -> str:
        """Return that a stock pipeline does not undo the parameterisation, unless there is nothing to undo."""
        if self.parameterization.is_linear:
            return ""
        return (
            f"diffusers' {self.stock_pipeline.class_name} does not undo parameterization: {self.parameterization.name}"
        )

    def spread(self, members: Tensor) -> Tensor:
        """Return the standard deviation after a scale and a shift that fit each member to the first."""
        return align_members(members).var(dim=0).sqrt()

    def publish_spread(self, affine: Tensor, spread: Tensor) -> Tensor:
        """Return half the way from a spread below to a spread above, in published depth."""
        if self.parameterization.is_linear:
            return spread
        return (self.from_affine(affine + spread) - self.from_affine(affine - spread)).abs() / 2

    def spread_in_unit(self, prediction: Tensor, spread: Tensor, target: Target) -> Tensor:
        """Return half the way from a spread below to a spread above, in metres, by the prediction's scale and shift."""
        fit = align_scale_shift(prediction, *self.as_predicted(target))
        scale, shift = (number[:, None, None, None] for number in fit)
        if self.parameterization.is_linear:  # what was equal stays equal, to the bit
            return scale.abs() * spread
        above, below = (self.parameterization.undo(scale * (prediction + end) + shift) for end in (spread, -spread))
        return (above - below).abs() / 2

    def calibration_error(self, aligned: Tensor, target: Target) -> Tensor:
        """Return the error in metres."""
        return (aligned - target.values).abs()

    def ensemble(self, members: Tensor) -> Tensor:
        """Return the pixelwise median after a scale and a shift per member that bring them closest together.

        The result of each image spans [-1, 1]: only its shape counts. By the function of diffusers' pipeline.
        """
        from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline

        images = unit_range(members).unbind(dim=1)
        return 2 * torch.cat([MarigoldDepthPipeline.ensemble_depth(image)[0] for image in images]) - 1


def _limits_of(depth: Tensor, mask: Tensor) -> Tensor:
    values = depth[mask].double()
    return (
        torch.quantile(values, values.new_tensor(_COLORED_QUANTILES)) if len(values) else values.new_tensor([0.0, 1.0])
    )
