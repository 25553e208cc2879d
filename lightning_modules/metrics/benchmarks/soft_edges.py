"""Soft edge errors: how far predictions at edges are from any true value nearby. Blur and flying pixels cost."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.angles import angle_deg
from geometry.masked import masked_quantiles
from lightning_modules.metrics.base import ImageScores
from lightning_modules.metrics.benchmarks.aligned_depth import AlignedMetric

PATCH_SIZES = (1, 3, 5, 7)
_QUANTILES = (0.02, 0.98)


class SoftEdgeError(ImageScores, AlignedMetric):
    """The soft edge error (SEE) of depth, in metres, after the alignment of a protocol; the mean over images.

    Convention:
        An edge pixel differs from one of its four neighbours by more than a threshold in 1 / depth. It is charged the
        smallest absolute difference between the prediction there and the true depths in a square around it:
        ``<protocol>/see3`` in 3x3 pixels, and so on; ``see1`` is the plain error at edges. Only pixels between the 2 %
        and the 98 % quantile of the true depth take part, in the alignment, too. Images without an edge are not
        counted. An edge that is shifted by one pixel costs nothing from ``see3`` on; a blurred one costs.

    Args:
        *args: The protocol, and what else ``AlignedMetric`` takes.
        jump: The difference in 1 / depth, per metre, from which on there is an edge.
        **options: What ``AlignedMetric`` takes.

    Source:
        huawei-bayerlab/marigold-v2, ``evaluation/depth_see`` (the text of their paper says disparity, their code and
        figures are of depth), after Chen et al., 2019. Deviation: the alignment is that of the protocol; their fits are
        least squares or RANSAC with a threshold of 0.05 in the logarithm of depth.
    """

    score_names = tuple(f"see{size}" for size in PATCH_SIZES)
    headline_score = "see3"

    def __init__(self, *args: Any, jump: float = 0.05, **options: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **options)
        self.jump = jump

    def scores_of(self, prediction: Tensor, target: Tensor, valid: Tensor, *more: Tensor) -> Tensor | None:
        """Return the errors of an image at its edges, if there are any."""
        low, high = masked_quantiles(target[None], valid[None], _QUANTILES)
        inside, depth = valid & (target >= low) & (target <= high), target[0].double()
        edges = _either_side(_jumps_of_disparity(depth, self.jump), inside[0])
        if not edges.any():
            return None
        predicted = self.align(prediction, target, inside)(prediction)[0, edges]
        return _smallest(
            (near[0][edges] - predicted).abs().where(known[edges], torch.inf)
            for near, known in _neighbours(depth[None], inside[0])
        )


class SoftAngularEdgeError(ImageScores):
    """The soft angular edge error (SAEE) of normals, in degrees; the mean over images.

    Convention:
        An edge pixel is turned from one of its four neighbours by a threshold or more. It is charged the smallest
        angle between the prediction there and the true normals in a square around it, ``saee3_deg`` in 3x3 pixels, and
        so on; ``saee1_deg`` is the plain error at edges. Images without an edge are not counted.

    Args:
        jump_deg: The angle between neighbours from which on there is an edge.

    Source:
        huawei-bayerlab/marigold-v2, ``evaluation/normals_saee``.
    """

    def __init__(self, jump_deg: float = 5.0) -> None:
        super().__init__([f"saee{size}_deg" for size in PATCH_SIZES])
        self.headline, self.jump_deg = "saee3_deg", jump_deg

    def scores_of(self, prediction: Tensor, target: Tensor, valid: Tensor, *more: Tensor) -> Tensor | None:
        """Return the errors of an image by size of the square, if there is an edge."""
        normals = target.double()
        rows = angle_deg(normals[None, :, 1:], normals[None, :, :-1])[0, 0] >= self.jump_deg
        columns = angle_deg(normals[None, :, :, 1:], normals[None, :, :, :-1])[0, 0] >= self.jump_deg
        edges = _either_side((rows, columns), valid[0])
        if not edges.any():
            return None
        predicted = prediction.double()[None, :, edges, None]
        return _smallest(
            angle_deg(predicted, near[None, :, edges, None])[0, 0, :, 0].where(known[edges], torch.inf)
            for near, known in _neighbours(normals, valid[0])
        )


def _neighbours(truth: Tensor, valid: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield what lies at every offset of the largest square, from the centre outward: (C,H,W) and where it is known."""
    radius = PATCH_SIZES[-1] // 2
    height, width = valid.shape
    padded, known = (F.pad(each, (radius,) * 4) for each in (truth, valid))
    for row, column in _offsets(radius):
        part = (slice(radius + row, radius + row + height), slice(radius + column, radius + column + width))
        yield padded[(slice(None), *part)], known[part]


def _offsets(radius: int) -> list[tuple[int, int]]:
    """Return the offsets of a square, those of the smaller squares inside it first."""
    side = range(-radius, radius + 1)
    return sorted(((row, column) for row in side for column in side), key=lambda at: max(map(abs, at)))


def _smallest(errors: Iterator[Tensor]) -> Tensor:
    """Return the mean of the smallest of the first 1, 9, 25, ... errors (N,) of the same pixels, (4,)."""
    means, smallest = [], torch.tensor(torch.inf, dtype=torch.float64)
    ends = {size**2 for size in PATCH_SIZES}
    for number, error in enumerate(errors, start=1):
        smallest = torch.minimum(error, smallest.to(error.device))
        if number in ends:
            means.append(smallest.mean())
    return torch.stack(means)


def _jumps_of_disparity(depth: Tensor, jump: float) -> tuple[Tensor, Tensor]:
    """Return between which rows (H-1,W) and columns (H,W-1) 1 / depth jumps."""
    disparity = torch.where(depth > 0, 1 / depth, 0.0)
    return disparity.diff(dim=0).abs() > jump, disparity.diff(dim=1).abs() > jump


def _either_side(jumps: tuple[Tensor, Tensor], valid: Tensor) -> Tensor:
    """Return the pixels (H,W) on either side of jumps between pixels that are both valid."""
    rows, columns = jumps
    rows, columns = rows & valid[1:] & valid[:-1], columns & valid[:, 1:] & valid[:, :-1]
    edges = F.pad(rows, (0, 0, 1, 0)) | F.pad(rows, (0, 0, 0, 1))
    return edges | F.pad(columns, (1, 0)) | F.pad(columns, (0, 1))
