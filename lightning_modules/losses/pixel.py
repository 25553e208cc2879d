"""Losses between a predicted and a true geometry image, in pixel space."""

import torch
from torch import Tensor

from geometry.alignment import align_scale_shift, alignment_is_defined
from geometry.angles import angle_between
from geometry.batch import Target
from geometry.errors import InputError
from geometry.masked import Reduction, masked_mean, masked_quantiles
from geometry.modalities import Modality
from lightning_modules.losses.base import Aligned, Loss, LossInputs


class ScaleShiftInvariantLoss(Loss):
    """Mean absolute error of depth after the best scale and shift per image.

    Convention:
        Each image is aligned by least squares over its valid pixels; the gradient flows through scale and shift.
        The target is in metres; where the task has a parameterisation g of depth, it is g of metres: a network that
        learns the logarithm is aligned and compared in logarithms. It is first clamped to quantiles of the image's
        valid values. An image with fewer than 2 valid pixels, or with a constant prediction, contributes no pixel. No
        pixel at all gives exactly 0.
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
        weight: Factor on the loss.

    Source:
        Ranftl et al., "Towards Robust Monocular Depth Estimation"; Martin Garcia et al., section 4.
    """

    name = "scale_shift_invariant"

    def __init__(
        self,
        positive_scale: bool = False,
        normalize_target: bool = False,
        reduction: Reduction = "pixel",
        low_quantile: float = 0.02,
        high_quantile: float = 0.98,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight)
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
        return self._mean_error(self.align(prediction, Target(target, valid_mask)), prediction.dtype)

    def of(self, inputs: LossInputs) -> Tensor:
        """Return the loss of the prediction, by the alignment of this loss."""
        return self._mean_error(inputs.aligned_by(self), inputs.prediction.dtype)

    def align(self, prediction: Tensor, target: Target) -> Aligned:
        """Return depth after the best scale and shift per image, beside the clamped truth.

        Args:
            prediction: (B,1,H,W) float, depth (or g of it) up to scale and shift.
            target: depth in metres (or g of it).
        """
        values, valid_mask = target
        with torch.autocast(prediction.device.type, enabled=False):
            return self._align(torch.where(valid_mask, prediction, 0.0).double(), values, valid_mask)

    def remarks(self, inputs: LossInputs) -> dict[str, Tensor]:
        """Return the share of images whose fitted scale is negative."""
        scale = inputs.aligned_by(self).scale
        assert scale is not None
        return {"negative_scale_share": (scale < 0).sum() / scale.isfinite().sum().clamp(min=1)}

    def _mean_error(self, aligned: Aligned, dtype: torch.dtype) -> Tensor:
        with torch.autocast(aligned.prediction.device.type, enabled=False):
            loss = masked_mean((aligned.prediction - aligned.target).abs(), aligned.mask, self.reduction)
        return loss.to(torch.promote_types(dtype, torch.float32))

    def _align(self, predicted: Tensor, target: Tensor, valid_mask: Tensor) -> Aligned:
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
        return Aligned(aligned, expected, valid_mask & _per_image(defined), raw_scale)

    def _prepare_target(self, target: Tensor, valid_mask: Tensor) -> Tensor:
        target = torch.where(valid_mask, target.float(), 0.0)
        low, high = (_per_image(value) for value in masked_quantiles(target, valid_mask, self.quantiles))
        target = target.clamp(low, high).double()
        if self.normalize_target:
            target = 2 * (target - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny) - 1
        return target


class AngularLoss(Loss):
    """Mean angle between predicted and true normals, in radians.

    Convention:
        The angle is atan2(|p x n|, p . n): the value of the arc cosine, but with a finite gradient everywhere, also
        for perfect and for opposite normals. The lengths of the vectors do not matter. A vector of length 0 has no
        direction: It counts as 90 degrees, with no gradient. Computed in float32 and outside autocast.

    Args:
        reduction: ``pixel`` weighs all valid pixels of the batch alike, as the paper does; ``image`` takes the mean
            of each image first.
        weight: Factor on the loss.

    Source:
        Martin Garcia et al., section 4. Deviation: atan2 in place of the arc cosine of a clamped cosine.
    """

    name = "angular"

    def __init__(self, reduction: Reduction = "pixel", weight: float = 1.0) -> None:
        super().__init__(weight)
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


class ModalityLoss(Loss):
    """The mean of a modality's own error over the known pixels.

    Args:
        modality: What is predicted.
        reduction: ``pixel`` weighs all valid pixels of the batch alike; ``image`` takes the mean of each image first.
        weight: Factor on the loss.
    """

    name = "error"

    def __init__(self, modality: Modality, reduction: Reduction = "pixel", weight: float = 1.0) -> None:
        super().__init__(weight)
        self.modality = modality
        self.reduction: Reduction = reduction

    def of(self, inputs: LossInputs) -> Tensor:
        """Return the error of the prediction beside the truth in its own unit: the modality aligns by itself."""
        return self(inputs.prediction, *inputs.batch.targets[self.modality.name])

    def forward(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the loss as a scalar float32; exactly 0 where nothing is known."""
        with torch.autocast(prediction.device.type, enabled=False):
            truth = Target(torch.where(valid_mask, target.float(), 0.0), valid_mask)
            aligned = self.modality.align(torch.where(valid_mask, prediction.float(), 0.0), truth)
            return masked_mean(self.modality.error(aligned, truth), valid_mask, self.reduction)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]
