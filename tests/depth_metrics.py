"""The depth metrics of Marigold's protocol, written down once more in NumPy and float64, for one image."""

import math

import numpy as np


def fit_scale_and_shift(prediction, depth):
    """Return the scale and shift that fit predictions (N,) to depths (N,) best, by least squares."""
    system = np.stack([prediction, np.ones_like(prediction)], axis=1)
    return np.linalg.lstsq(system, depth, rcond=None)[0]


def depth_metrics(prediction, depth, near=1e-6, far=math.inf, fit=None):
    """Return the metrics of predictions (N,) for depths (N,), float64.

    Args:
        prediction: what was predicted where the depth is valid.
        depth: metres.
        near: smallest depth that a prediction is clipped to.
        far: largest depth that a prediction is clipped to.
        fit: scale and shift; found on these very pixels by default.
    """
    scale, shift = fit_scale_and_shift(prediction, depth) if fit is None else fit
    p, d = np.maximum(np.clip(scale * prediction + shift, near, far), 1e-6), depth
    log_error, ratio = np.log(p) - np.log(d), np.maximum(p / d, d / p)
    return {
        "abs_rel": np.mean(np.abs(p - d) / d),
        "sq_rel": np.mean((p - d) ** 2 / d),
        "rmse": np.sqrt(np.mean((p - d) ** 2)),
        "rmse_log": np.sqrt(np.mean(log_error**2)),
        "log10": np.mean(np.abs(np.log10(p) - np.log10(d))),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
        "irmse": np.sqrt(np.mean((1 / p - 1 / d) ** 2)),
        "silog": 100 * np.sqrt(np.mean(log_error**2) - np.mean(log_error) ** 2),
    }
