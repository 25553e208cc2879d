"""Calibration as a figure: how the error falls as unsure pixels are left out, and the error beside the spread."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

_SIZE_PX = 420
_MARGIN_PX = 60
_INK, _FAINT = (40, 40, 40), (200, 200, 200)
_OURS, _ORACLE, _CHANCE = (164, 59, 32), (60, 120, 60), (150, 150, 150)

Point = tuple[float, float]


def calibration_figure(calibration: Mapping[str, Any]) -> np.ndarray:
    """Return a figure (H,W,3) uint8 RGB: sparsification at the left, reliability at the right.

    Args:
        calibration: what ``Calibration.describe`` returned.
    """
    shares = calibration["removed_share"]
    left = _Axes("least sure pixels left out (%)", "error left (%)", (0, 100), (0, 105))
    left.line([(0, 100), (100 * shares[-1], 100)], _CHANCE, "chance")
    left.line(_points(shares, calibration["error_left_oracle"]), _ORACLE, "oracle")
    left.line(_points(shares, calibration["error_left"]), _OURS, "spread")
    unit = f" ({calibration['unit']})" if calibration["unit"] else ""
    pairs = [(row["rms_spread"], row["rms_error"]) for row in calibration["bins"]]
    logs = [(math.log10(x), math.log10(y)) for x, y in pairs if x > 0 and y > 0]
    values = [value for pair in logs for value in pair] or [0.0]
    ends = (math.floor(min(values)), max(math.ceil(max(values)), math.floor(min(values)) + 1))
    right = _Axes(f"rms spread{unit}", f"rms error{unit}", ends, ends, is_log=True)
    right.line([(ends[0], ends[0]), (ends[1], ends[1])], _CHANCE, "error = spread")
    right.line(logs, _OURS, "pixels by spread")
    return np.concatenate([left.image, right.image], axis=1)


def _points(shares: Sequence[float], errors: Sequence[float]) -> list[Point]:
    return [(100 * share, 100 * error) for share, error in zip(shares, errors, strict=True)]


class _Axes:
    """A plot with two labelled axes.

    Args:
        x_label: below.
        y_label: above.
        x_range: values at the ends, their decimal logarithms if is_log.
        y_range: likewise.
        is_log: ticks stand at powers of ten.
    """

    def __init__(self, x_label: str, y_label: str, x_range: Point, y_range: Point, is_log: bool = False) -> None:
        self.image = np.full((_SIZE_PX, _SIZE_PX, 3), 255, np.uint8)
        self.ranges = (x_range, y_range)
        self.num_lines = 0
        for number in range(5) if not is_log else range(int(x_range[0]), int(x_range[1]) + 1):
            x, y = (number, number) if is_log else (25 * number, 25 * number)
            text = f"{10.0**number:g}" if is_log else str(x)
            self._segment((x, y_range[0]), (x, y_range[1]), _FAINT)
            self._segment((x_range[0], y), (x_range[1], y), _FAINT)
            column, row = self._place((x, y_range[0]))
            self._write(text, (column - 4 * len(text), row + 18))
            column, row = self._place((x_range[0], y))
            self._write(text, (column - 8 * len(text) - 6, row + 4))
        self._write(x_label, (_MARGIN_PX, _SIZE_PX - 14))
        self._write(y_label, (14, 24))

    def line(self, points: Sequence[Point], color: tuple[int, int, int], name: str) -> None:
        """Draw a line through points, and its name."""
        places = np.array([self._place(point) for point in points], np.int32).reshape(-1, 1, 2)
        if len(places):
            cv2.polylines(self.image, [places], False, color, 2, cv2.LINE_AA)
        for place in places[:, 0].tolist() if len(places) < 2 else []:
            cv2.circle(self.image, place, 3, color, -1, cv2.LINE_AA)
        self._write(name, (_SIZE_PX - _MARGIN_PX - 110, _SIZE_PX - _MARGIN_PX - 14 - 18 * self.num_lines), color)
        self.num_lines += 1

    def _place(self, point: Point) -> tuple[int, int]:
        (x0, x1), (y0, y1) = self.ranges
        span = _SIZE_PX - 1.7 * _MARGIN_PX
        return (
            round(_MARGIN_PX + span * (point[0] - x0) / (x1 - x0)),
            round(_SIZE_PX - _MARGIN_PX - span * (point[1] - y0) / (y1 - y0)),
        )

    def _segment(self, first: Point, second: Point, color: tuple[int, int, int]) -> None:
        cv2.line(self.image, self._place(first), self._place(second), color, 1, cv2.LINE_AA)

    def _write(self, text: str, place: tuple[int, int], color: tuple[int, int, int] = _INK) -> None:
        cv2.putText(self.image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, color, 1, cv2.LINE_AA)
