"""Depth along the optical axis, predicted up to scale and shift."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from geometry.alignment import align_scale_shift
from geometry.batch import Target
from geometry.colorize import colorize_depth
from geometry.masked import masked_quantiles
from geometry.modalities.modality import Modality, StockPipeline, known_or, three_channels, unit_range
from geometry.modalities.stored import Array, Facts

_QUANTILES = (0.02, 0.98)


class Depth(Modality):
    """Planar depth in metres, learned and predicted up to a scale and a shift per image.

    Convention:
        The image for the VAE holds depth in three equal channels: its 2 % quantile is -1, its 98 % quantile and what
        is unknown are 1. A prediction is the mean of the decoded channels, clamped to [-1, 1]; published, 0 is
        nearest and 1 farthest.
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
    stock_pipeline = StockPipeline(
        "MarigoldDepthPipeline",
        {"prediction_type": "depth", "scale_invariant": True, "shift_invariant": True},
        tag="depth-estimation",
        needs={"prediction_type": "depth"},
    )

    def is_known(self, values: Array) -> Array:
        """Return where depth is positive."""
        return values > 0

    def describe(self, facts: Facts) -> dict[str, float | None]:
        """Return facts, the share as ``valid_share``."""
        described = super().describe(facts)
        return {"valid_share": described.pop(f"{self.name}_share"), **described}

    def problems(self, values: Array, limits: tuple[float, float]) -> Iterator[str]:
        """Yield numbers that are no depths, and depths beyond the planes."""
        known = self.numbers(values)
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
        """Return depth between its outer quantiles, far where unknown."""
        mask = target.mask
        depth = known_or(target.values, mask, 0.0)
        low, high = (bound[:, None, None, None] for bound in masked_quantiles(depth, mask, _QUANTILES))
        span = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        relative = 2 * (depth.clamp(low, high) - low) / span - 1
        return three_channels(torch.where(mask, relative, 1.0))

    def from_image(self, decoded: Tensor) -> Tensor:
        """Return (B,1,H,W) float32 in [-1, 1]."""
        return decoded.float().mean(dim=1, keepdim=True).clamp(-1, 1)

    def align(self, prediction: Tensor, target: Target) -> Tensor:
        """Return the prediction after the scale and shift per image that fit the truth best, in metres."""
        scale, shift = align_scale_shift(prediction, *target)
        return scale[:, None, None, None] * prediction + shift[:, None, None, None]

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
        """Return depth in [0, 1]."""
        return unit_range(prediction)

    def ensemble(self, members: Tensor) -> Tensor:
        """Return the pixelwise median after a scale and a shift per member that bring them closest together.

        The result of each image spans [-1, 1]: only its shape counts. By the function of diffusers' pipeline.
        """
        from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline

        images = unit_range(members).unbind(dim=1)
        return 2 * torch.cat([MarigoldDepthPipeline.ensemble_depth(image)[0] for image in images]) - 1


def _limits_of(depth: Tensor, mask: Tensor) -> Tensor:
    values = depth[mask].double()
    return torch.quantile(values, values.new_tensor(_QUANTILES)) if len(values) else values.new_tensor([0.0, 1.0])
