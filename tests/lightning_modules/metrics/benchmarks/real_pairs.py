"""Real depth with made-up predictions, the same to the last bit wherever they are made."""

import cv2
import numpy as np

from tests.helpers.benchmark_archives import SAMPLES

_UNITS_PER_M = {"nyu": 1000, "kitti": 256}
_LIMITS = {"nyu": (1e-3, 10.0), "kitti": (1e-5, 80.0)}


def real_pairs():
    """Yield name, depth, prediction (positive, up to scale and shift), both (H,W) float64, mask and limits of depth.

    The prediction is a blurred and bent depth of another scale, with noise.
    """
    for dataset, units in _UNITS_PER_M.items():
        for file in sorted((SAMPLES / dataset / "depth").iterdir()):
            depth = cv2.imread(str(file), -1)[::3, ::3].astype(np.float64) / units
            near, far = _LIMITS[dataset]
            mask = (depth > near) & (depth < far)
            filled = np.where(mask, depth, np.median(depth[mask]))
            bent = 0.4 * filled**0.9 + 0.3 + 0.02 * filled * np.sin(np.arange(depth.shape[1]) / 9)
            noise = np.random.default_rng(7).normal(size=depth.shape)
            yield f"{dataset}/{file.stem}", depth, bent * np.exp(0.05 * noise), mask, (near, far)
