"""Least-squares scale and shift between a prediction and a target, image by image.

All arithmetic is in float64, which autocast leaves alone.
"""

import torch
from torch import Tensor

# A prediction whose values span less than this many float32 roundings of its largest value is a constant.
_CONSTANT_SPAN = 4 * torch.finfo(torch.float32).eps
_SMALLEST_SPAN = 1e-30


def align_scale_shift(prediction: Tensor, target: Tensor, valid_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and shift per image for which ``scale * prediction + shift`` fits the target best.

    Convention:
        Minimises the sum of (scale * prediction + shift - target)^2 over the valid pixels of one image. The scale
        may be negative. Predictions -1, 0, 1 against 2, 4, 6 metres give scale 2, shift 4.
        Where no scale is defined (see ``alignment_is_defined``) the scale is 0 and the shift is the mean of the valid
        target values, or 0 if there are none: a constant, with no gradient to the prediction.

    Differentiable in prediction and target. What lies outside the mask never matters, not even infinities and
    NaN; a NaN or an infinite prediction inside the mask gives NaN, so that the caller notices.

    Args:
        prediction: (B,C,H,W) float. Half precision is upcast.
        target: (B,C,H,W) float.
        valid_mask: (B,1,H,W) bool, the pixels to fit.

    Returns:
        ``(scale, shift)``, each (B,); float64 if prediction or target is, else float32.

    Raises:
        ValueError: the shapes do not agree, or the mask is not boolean.

    Source:
        The fit in the scale- and shift-invariant loss of Ranftl et al., "Towards Robust Monocular Depth Estimation".
        Deviation: centred moments in float64 (covariance / variance) in place of the 2x2 determinant, which cancels.
    """
    _check(prediction, valid_mask, target)
    out_dtype = torch.float64 if torch.float64 in (prediction.dtype, target.dtype) else torch.float32
    defined = alignment_is_defined(prediction, valid_mask)
    predicted, expected, weight = prediction.double(), target.double(), valid_mask.expand_as(prediction)
    mean_prediction = _masked_mean(predicted, weight)
    mean_target = _masked_mean(expected, weight)
    centred = _keep(predicted - _per_image(mean_prediction), weight)
    covariance = (centred * _keep(expected - _per_image(mean_target), weight)).sum(dim=(1, 2, 3))
    variance = centred.square().sum(dim=(1, 2, 3))
    scale = torch.where(defined, covariance / torch.where(defined, variance, 1.0), 0.0)
    shift = mean_target - torch.where(defined, scale * mean_prediction, 0.0)
    return scale.to(out_dtype), shift.to(out_dtype)


def alignment_is_defined(prediction: Tensor, valid_mask: Tensor) -> Tensor:
    """Return for which images a scale can be fitted.

    Convention:
        False with fewer than 2 valid pixels, and where the valid predictions are one constant up to 4 float32
        roundings. True where a valid prediction is NaN or infinite: that is no constant, and must not go unnoticed.

    Args:
        prediction: (B,C,H,W) float.
        valid_mask: (B,1,H,W) bool.

    Returns:
        (B,) bool.

    Raises:
        ValueError: the shapes do not agree, or the mask is not boolean.
    """
    _check(prediction, valid_mask)
    values = prediction.detach().double()
    highest = torch.where(valid_mask, values, -torch.inf).amax(dim=(1, 2, 3))
    lowest = torch.where(valid_mask, values, torch.inf).amin(dim=(1, 2, 3))
    span = highest - lowest
    smallest_span = _CONSTANT_SPAN * torch.maximum(highest.abs(), lowest.abs()) + _SMALLEST_SPAN
    constant = span.isfinite() & (span <= smallest_span)
    return (valid_mask.sum(dim=(1, 2, 3)) >= 2) & ~constant


def _keep(values: Tensor, mask: Tensor) -> Tensor:
    """Zero outside the mask. A product with the mask would turn infinities into NaN."""
    return torch.where(mask, values, 0.0)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return _keep(values, mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp(min=1)


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _check(prediction: Tensor, valid_mask: Tensor, target: Tensor | None = None) -> None:
    """Broadcasting would accept many a wrong shape and fit something else."""
    if prediction.ndim != 4:
        raise ValueError(f"prediction must be (B,C,H,W), got {tuple(prediction.shape)}.")
    shape = tuple(prediction.shape)
    if target is not None and tuple(target.shape) != shape:
        raise ValueError(f"target must have the shape of prediction {shape}, got {tuple(target.shape)}.")
    mask_shape = (shape[0], 1, *shape[2:])
    if tuple(valid_mask.shape) != mask_shape or valid_mask.dtype != torch.bool:
        raise ValueError(f"valid_mask must be bool {mask_shape}, got {valid_mask.dtype} {tuple(valid_mask.shape)}.")
