"""Losses between a predicted and a true geometry image, in pixel space."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from geometry.alignment import align_scale_shift, alignment_is_defined
from geometry.errors import InputError

Reduction = Literal["pixel", "image"]


class AlignedDepth(NamedTuple):
    """Depth after the best scale and shift per image, beside what it is compared with.

    Attributes:
        prediction: (B,1,H,W) float64, scaled and shifted.
        target: (B,1,H,W) float64, clamped, and normalised if the loss does so.
        mask: (B,1,H,W) bool, the pixels that count.
        scale: (B,) float64, detached and before ``positive_scale``; NaN where undefined.
    """

    prediction: Tensor
    target: Tensor
    mask: Tensor
    scale: Tensor


class ScaleShiftInvariantLoss(nn.Module):
    """Mean absolute error of depth after the best scale and shift per image.

    Convention:
        Each image is aligned by least squares over its valid pixels; the gradient flows through scale and shift.
        The target is in metres and first clamped to quantiles of the image's valid depth. An image with fewer than
        2 valid pixels, or with a constant prediction, contributes no pixel. No pixel at all gives exactly 0.
        Computed in float64 and outside autocast: a prediction that hardly varies makes float32 cancel.

    Args:
        positive_scale: Replace a negative scale by its magnitude, so that an upside-down depth costs something.
            The paper accepts it: there, an upside-down depth has zero loss.
        normalize_target: Map the quantile range of each target to [-1, 1] before the loss, so that far outdoor
            images do not outweigh indoor ones. The paper compares metres.
        reduction: ``pixel`` weighs all valid pixels of the batch alike, as the paper does; ``image`` takes the mean
            of each image first.
        low_quantile: Quantile of the valid depth below which the target is clamped; 0 clamps nothing.
        high_quantile: Quantile of the valid depth above which the target is clamped; 1 clamps nothing.

    Source:
        Ranftl et al., "Towards Robust Monocular Depth Estimation"; Martin Garcia et al., section 4.
    """

    def __init__(
        self,
        positive_scale: bool = False,
        normalize_target: bool = False,
        reduction: Reduction = "pixel",
        low_quantile: float = 0.02,
        high_quantile: float = 0.98,
    ) -> None:
        super().__init__()
        if not 0 <= low_quantile < high_quantile <= 1:
            raise InputError(
                f"the loss needs 0 <= low_quantile < high_quantile <= 1, got {low_quantile} and {high_quantile}."
            )
        self.positive_scale = positive_scale
        self.normalize_target = normalize_target
        self.reduction: Reduction = reduction
        self.quantiles = (low_quantile, high_quantile)

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the loss.

        Args:
            prediction: (B,1,H,W) float, depth up to scale and shift.
            target: (B,1,H,W) float, depth in metres.
            valid_mask: (B,1,H,W) bool.

        Returns:
            Scalar float32 (float64 for a float64 prediction) that depends on the prediction even where nothing
            is valid.
        """
        return self.loss_and_alignment(prediction, target, valid_mask)[0]

    def loss_and_alignment(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> tuple[Tensor, AlignedDepth]:
        """Return the loss and what it compared, for those who also want to know the scales or to add terms.

        Args:
            prediction: (B,1,H,W) float, depth up to scale and shift.
            target: (B,1,H,W) float, depth in metres.
            valid_mask: (B,1,H,W) bool.

        Returns:
            The scalar loss, and the aligned depth with its graph.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            aligned = self._align(torch.where(valid_mask, prediction, 0.0).double(), target, valid_mask)
            loss = masked_mean((aligned.prediction - aligned.target).abs(), aligned.mask, self.reduction)
        return loss.to(torch.promote_types(prediction.dtype, torch.float32)), aligned

    def _align(self, predicted: Tensor, target: Tensor, valid_mask: Tensor) -> AlignedDepth:
        expected = self._prepare_target(target, valid_mask)
        scale, shift = align_scale_shift(predicted, expected, valid_mask)
        defined = alignment_is_defined(predicted, valid_mask)
        raw_scale = torch.where(defined, scale.detach(), torch.nan)
        if self.positive_scale:
            # No gradient through a magnitude: the loss would not change with the size of the prediction, which
            # could then never shrink through zero and come out upright.
            magnitude = torch.where(scale < 0, -scale.detach(), scale)
            mean = predicted.sum(dim=(1, 2, 3)) / valid_mask.sum(dim=(1, 2, 3)).clamp(min=1)
            scale, shift = magnitude, shift + (scale - magnitude) * mean
        aligned = _per_image(scale) * predicted + _per_image(shift)
        return AlignedDepth(aligned, expected, valid_mask & _per_image(defined), raw_scale)

    def _prepare_target(self, target: Tensor, valid_mask: Tensor) -> Tensor:
        target = torch.where(valid_mask, target.float(), 0.0)
        low, high = (_per_image(value) for value in masked_quantiles(target, valid_mask, self.quantiles))
        target = target.clamp(low, high).double()
        if self.normalize_target:
            target = 2 * (target - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny) - 1
        return target


class AngularLoss(nn.Module):
    """Mean angle between predicted and true normals, in radians.

    Convention:
        The angle is atan2(|p x n|, p . n): the value of the arc cosine, but with a finite gradient everywhere, also
        for perfect and for opposite normals. The lengths of the vectors do not matter. A vector of length 0 has no
        direction: It counts as 90 degrees, with no gradient. Computed in float32 and outside autocast.

    Args:
        reduction: ``pixel`` weighs all valid pixels of the batch alike, as the paper does; ``image`` takes the mean
            of each image first.

    Source:
        Martin Garcia et al., section 4. Deviation: atan2 in place of the arc cosine of a clamped cosine.
    """

    def __init__(self, reduction: Reduction = "pixel") -> None:
        super().__init__()
        self.reduction: Reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the loss.

        Args:
            prediction: (B,3,H,W) float, normals.
            target: (B,3,H,W) float, unit normals.
            valid_mask: (B,1,H,W) bool.

        Returns:
            Scalar float32 (float64 for a float64 prediction) that depends on the prediction even where nothing
            is valid.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            dtype = torch.promote_types(prediction.dtype, torch.float32)
            predicted = torch.where(valid_mask, prediction.to(dtype), 0.0)
            expected = torch.where(valid_mask, target.to(dtype), 0.0)
            return masked_mean(angle_between(predicted, expected), valid_mask, self.reduction)


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """Return the angle between vectors along dimension 1, differentiable everywhere.

    Args:
        first: (B,3,H,W) float, of any lengths.
        second: (B,3,H,W) float, of any lengths.

    Returns:
        (B,1,H,W) in [0, pi]; pi / 2 where a vector is zero.
    """
    cosine = (first * second).sum(dim=1, keepdim=True)
    squared_sine = torch.linalg.cross(first, second, dim=1).square().sum(dim=1, keepdim=True)
    parallel = squared_sine == 0
    sine = torch.where(parallel, 1.0, squared_sine).sqrt() * ~parallel
    undefined = parallel & (cosine == 0)
    return torch.where(undefined, math.pi / 2, torch.atan2(sine, torch.where(undefined, 1.0, cosine)))


def masked_mean(values: Tensor, mask: Tensor, reduction: Reduction) -> Tensor:
    """Return the mean inside the mask: over all pixels, or of the means of those images that have any.

    Args:
        values: (B,1,H,W) float.
        mask: (B,1,H,W) bool.
        reduction: ``pixel`` or ``image``.

    Returns:
        Scalar; exactly 0 for an empty mask.
    """
    sums = torch.where(mask, values, 0.0).sum(dim=(1, 2, 3))
    counts = mask.sum(dim=(1, 2, 3))
    if reduction == "pixel":
        return sums.sum() / counts.sum().clamp(min=1)
    return (sums / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def masked_quantiles(values: Tensor, mask: Tensor, quantiles: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """Return two quantiles per image inside the mask, linearly interpolated as NumPy does.

    Sorts rather than asks how many values there are, so that no GPU has to wait for the host.

    Args:
        values: (B,1,H,W) float.
        mask: (B,1,H,W) bool.
        quantiles: two numbers in [0, 1].

    Returns:
        Two tensors (B,); 0 for an empty mask.
    """
    ordered = torch.where(mask, values, torch.inf).flatten(1).sort(dim=1).values
    last = mask.flatten(1).sum(dim=1).sub(1).clamp(min=0)
    low, high = (_interpolate(ordered, quantile * last.double()) for quantile in quantiles)
    empty = ~mask.flatten(1).any(dim=1)
    return low.masked_fill(empty, 0.0), high.masked_fill(empty, 0.0)


def _interpolate(ordered: Tensor, position: Tensor) -> Tensor:
    """Read (B,N) rows at fractional positions (B,)."""
    below = position.floor().long()
    above = position.ceil().long()
    low = ordered.gather(1, below[:, None])[:, 0]
    high = ordered.gather(1, above[:, None])[:, 0]
    return torch.lerp(low, high, (position - below).to(ordered.dtype))


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
