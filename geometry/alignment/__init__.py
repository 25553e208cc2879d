"""Scale and shift between a prediction and a target: least squares, RANSAC, and metres from a few known pixels."""

from geometry.alignment.least_squares import align_scale_shift, alignment_is_defined

__all__ = ["align_scale_shift", "alignment_is_defined"]
