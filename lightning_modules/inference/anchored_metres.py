"""Depth in metres beside relative depth, for photos with anchors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from geometry.alignment.anchored import AnchoredFit, fit_anchors
from geometry.errors import InputError
from geometry.files.writing import write_whole
from geometry.modalities import Depth, Modality
from lightning_modules.command_line.tables import format_csv
from lightning_modules.inference.results import LARGEST_16_BIT, npy_bytes, png_bytes

_MILLIMETRES_PER_M = 1000.0


@dataclass(frozen=True)
class AnchoredMetres:
    """Turns published depth into metres and writes it.

    Attributes:
        modality: what is predicted, depth.
        anchors: by image, (N,3) x, y in pixels and depth in metres.
        tolerance: largest relative error of an anchor that is believed.

    Raises:
        InputError: something else is predicted, or the tolerance makes no sense.
    """

    modality: Modality
    anchors: Mapping[Path, np.ndarray]
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.modality, Depth):
            raise InputError(
                f"--anchors need a model that predicts depth, but this one predicts {self.modality.title}."
            )
        if not 0 < self.tolerance < 1:
            raise InputError(f"--anchor_tolerance must lie between 0 and 1, got {self.tolerance}.")

    def names(self, file: Path, stem: str) -> list[str]:
        """Return the names of the files that ``write`` writes for an image; none without anchors.

        Args:
            file: the image.
            stem: what the names begin with.
        """
        names = [f"{stem}_depth_metres.npy", f"{stem}_depth_millimetres.png", f"{stem}_anchors.csv"]
        return names if file in self.anchors else []

    def write(self, file: Path, prediction: np.ndarray, folder: Path, stem: str) -> tuple[np.ndarray, str]:
        """Fit, write metres and residuals, and return depth in metres (H,W) float32 and a sentence about the fit.

        Args:
            file: the image, one with anchors.
            prediction: (H,W) float32, published depth.
            folder: where to; must exist.
            stem: what the names begin with.

        Raises:
            InputError: an anchor lies outside the image, or they do not agree with the prediction.
        """
        assert isinstance(self.modality, Depth)
        anchors = self.anchors[file]
        height, width = prediction.shape
        columns, rows = (np.floor(anchors[:, axis]).astype(np.int64) for axis in (0, 1))
        outside = (columns < 0) | (columns >= width) | (rows < 0) | (rows >= height)
        if outside.any():
            x, y, _ = anchors[outside][0]
            raise InputError(f"the anchor at x {x:g}, y {y:g} lies outside the image of {width}x{height} pixels.")
        affine = self.modality.to_affine(torch.from_numpy(prediction))
        fit = fit_anchors(
            affine[rows, columns], torch.from_numpy(anchors[:, 2]), self.modality.parameterization, self.tolerance
        )
        metres = fit(affine).float().numpy()
        at_anchors = metres[rows, columns].astype(np.float64)
        array, image, residuals = self.names(file, stem)
        write_whole(folder / residuals, _residuals(anchors, at_anchors, fit))
        millimetres = np.rint(metres * _MILLIMETRES_PER_M)
        written = np.where(millimetres <= LARGEST_16_BIT, millimetres, 0).astype(np.uint16)  # 0 where they do not fit
        write_whole(folder / image, png_bytes(written))
        write_whole(folder / array, npy_bytes(metres))
        return metres, _sentence(anchors, at_anchors, fit, metres)


def _residuals(anchors: np.ndarray, fitted: np.ndarray, fit: AnchoredFit) -> str:
    rows: list[list[object]] = [["x", "y", "metres", "fitted_metres", "relative_error", "used"]]
    for (x, y, metres), value, used in zip(anchors.tolist(), fitted.tolist(), fit.used.tolist(), strict=True):
        rows.append([x, y, metres, f"{value:.6g}", f"{value / metres - 1:.6g}", int(used)])
    return format_csv(rows)


def _sentence(anchors: np.ndarray, fitted: np.ndarray, fit: AnchoredFit, metres: np.ndarray) -> str:
    used = fit.used.numpy()
    errors = np.abs(fitted / anchors[:, 2] - 1)[used]
    beyond = float((metres > LARGEST_16_BIT / _MILLIMETRES_PER_M).mean())
    parts = [
        f"{used.sum()} of {len(used)} anchors used, relative error {100 * np.median(errors):.2g} % (median), "
        f"{100 * errors.max():.2g} % (largest); depth as {fit.space.name} = {float(fit.scale):.6g} * prediction + "
        f"{float(fit.shift):.6g}"
    ]
    if used.sum() == 2:
        parts.append("two anchors fit any scale and shift, so their errors say nothing")
    elif 2 * used.sum() < len(used):
        parts.append("most anchors disagree: check them, or raise --anchor_tolerance")
    if beyond > 0:
        parts.append(f"{100 * beyond:.2g} % of the pixels are beyond 65.535 m and 0 in the PNG of millimetres")
    return "; ".join(parts)
