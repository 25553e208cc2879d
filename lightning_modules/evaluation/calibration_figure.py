"""Calibration as a figure: how the error falls as unsure pixels are left out, and the error beside the spread."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_SIDES_IN, _DOTS_PER_IN = (8.4, 4.2), 100
_OURS, _ORACLE, _CHANCE = "#a43b20", "#3c783c", "#969696"


def calibration_figure(calibration: Mapping[str, Any]) -> np.ndarray:
    """Return a figure (420,840,3) uint8 RGB: sparsification at the left, reliability at the right.

    Args:
        calibration: what ``Calibration.describe`` returned.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    canvas = FigureCanvasAgg(Figure(_SIDES_IN, _DOTS_PER_IN, layout="constrained"))
    left, right = canvas.figure.subplots(1, 2)
    shares = 100 * np.array(calibration["removed_share"])
    left.plot(shares, np.full_like(shares, 100), color=_CHANCE, label="chance")
    left.plot(shares, 100 * np.array(calibration["error_left_oracle"]), color=_ORACLE, label="oracle")
    left.plot(shares, 100 * np.array(calibration["error_left"]), color=_OURS, label="spread")
    left.set(xlabel="least sure pixels left out (%)", ylabel="error left (%)", xlim=(0, 100), ylim=(0, 105))
    unit = f" ({calibration['unit']})" if calibration["unit"] else ""
    pairs = [(row["rms_spread"], row["rms_error"]) for row in calibration["bins"]]
    values = np.array([pair for pair in pairs if min(pair) > 0]).reshape(-1, 2)
    ends = (values.min(), values.max()) if values.size else (0.1, 1)
    right.loglog(ends, ends, color=_CHANCE, label="error = spread")
    right.loglog(*values.T, ".-", color=_OURS, label="pixels by spread")
    right.set(xlabel=f"rms spread{unit}", ylabel=f"rms error{unit}")
    for axes in (left, right):
        axes.grid(alpha=0.5)
        axes.legend()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
