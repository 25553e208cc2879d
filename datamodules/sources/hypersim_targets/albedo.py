"""Albedo from Hypersim's diffuse reflectance."""

import numpy as np

from datamodules.sources.hypersim_targets.reader import TargetReader
from geometry.modalities.albedo import Albedo

Array = np.ndarray


def albedo_of(reflectance: Array, has_entity: Array) -> Array:
    """Return albedo (3,H,W) float32; unknown where there is no object, or no finite number.

    Args:
        reflectance: (H,W,3), linear.
        has_entity: (H,W) bool.
    """
    values = np.moveaxis(reflectance.astype(np.float32), -1, 0)
    known = has_entity & np.isfinite(values).all(axis=0)
    return np.where(known, values.clip(0, 1), np.float32(Albedo.unknown))


READER = TargetReader(Albedo.name, "diffuse_reflectance", albedo_of)
