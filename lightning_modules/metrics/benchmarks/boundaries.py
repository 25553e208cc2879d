"""Boundaries by the ratio of neighbouring depths: F1 against true depth, recall against a mask of the foreground."""

import math

import torch
from torch import Tensor

from geometry.parameterization import Parameterization
from lightning_modules.metrics.base import ImageScores
from lightning_modules.metrics.benchmarks.aligned_depth import AlignedMetric

_THRESHOLDS = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)
_MIN_DEPTH_M = 1e-6


class BoundaryF1(ImageScores, AlignedMetric):
    """The boundary F1 of depth after the alignment of a protocol; the mean over images. More is better.

    Convention:
        Between two neighbouring pixels there is a boundary where one is so many times as far as the other; its side
        (left, top, right, bottom) is that of what is nearer. Precision and recall are means over the four sides, F1 is
        theirs at ten thresholds from 1.05 to 1.25, weighed with the threshold. Ratios do not depend on scale, but on
        shift. Pairs with an unknown pixel do not take part; the source knows no unknown pixels.
        ``<protocol>/boundary_f1``, ``boundary_precision``, ``boundary_recall``, and ``boundary_f1_error``, 1 - F1.

    Source:
        apple/ml-depth-pro, ``src/depth_pro/eval/boundary_metrics.py``, SI_boundary_F1.
    """

    score_names = ("boundary_f1", "boundary_precision", "boundary_recall")
    headline_score = "boundary_f1_error"

    def scores_of(self, prediction: Tensor, target: Tensor, valid: Tensor, *more: Tensor) -> Tensor:
        """Return F1, precision and recall of an image, weighed over the thresholds."""
        aligned = self.align(prediction, target, valid)(prediction)[0]
        ratios = list(zip(_nearness_ratios(aligned), _nearness_ratios(target[0]), _pairs(valid[0]), strict=True))
        scores = []
        for threshold in _THRESHOLDS.tolist():
            counts = torch.tensor([_hits(ours > threshold, true > threshold, known) for ours, true, known in ratios])
            hits, found, there = counts.double().clamp(min=0).unbind(dim=1)
            recall, precision = (hits / there.clamp(min=1)).mean(), (hits / found.clamp(min=1)).mean()
            f1 = 2 * recall * precision / (recall + precision).clamp(min=1e-300)
            scores.append(torch.stack([f1, precision, recall]))
        return (torch.stack(scores) * (_THRESHOLDS / _THRESHOLDS.sum())[:, None]).sum(dim=0).to(aligned.device)

    def compute(self) -> dict[str, Tensor]:
        """Return F1, what it lacks, and what it is made of; NaN without any image."""
        means = super().compute()
        return {self.headline: 1 - means[f"{self.protocol.name}/boundary_f1"]} | means


class BoundaryRecall(ImageScores):
    """The share of the outline of a foreground that depth shows, for images with a matte and no depth.

    Convention:
        Needs the reference ``matte``, whose values are opacities in [0, 1] and whose foreground is above 0.1. Of
        neighbouring boundaries in a row or column only the strongest counts. The mean over the four sides of what is
        nearer and over thresholds as in ``BoundaryF1``: ``matte_recall``, and ``matte_recall_error``, 1 - recall.
        The prediction is taken as it is, in its space, so it must be known up to scale: for depth that is known up to
        a shift, the figure depends on ``shift``.

    Args:
        space: The space in which predictions are known up to scale; by default depth itself.
        shift: What is added to predictions.

    Source:
        apple/ml-depth-pro, ``src/depth_pro/eval/boundary_metrics.py``, SI_boundary_Recall.
    """

    headline, reference, needs_reference = "matte_recall_error", "matte", True
    knows_modality = True

    def __init__(self, space: Parameterization | None = None, shift: float = 0.0) -> None:
        super().__init__(("matte_recall",))
        self.space, self.shift = space or Parameterization(), shift

    def scores_of(self, prediction: Tensor, target: Tensor, valid: Tensor, *more: Tensor) -> Tensor:
        """Return the recall of an image whose ``target`` is an opacity in [0, 1], known where ``valid`` is."""
        return matte_recall(self.space.undo(prediction[0].double() + self.shift), target[0] > 0.1)

    def compute(self) -> dict[str, Tensor]:
        """Return the recall and what it lacks; NaN without any image."""
        means = super().compute()
        return {self.headline: 1 - means["matte_recall"]} | means


def matte_recall(depth: Tensor, foreground: Tensor) -> Tensor:
    """Return the recall () of a foreground's outline, weighed over the thresholds.

    Args:
        depth: (H,W) float, predicted, in any unit.
        foreground: (H,W) bool.
    """
    ratios = _nearness_ratios(depth)
    outlines = [foreground[:, :-1] & ~foreground[:, 1:], foreground[:-1] & ~foreground[1:]]
    outlines += [foreground[:, 1:] & ~foreground[:, :-1], foreground[1:] & ~foreground[:-1]]
    recalls = []
    for threshold in _THRESHOLDS.tolist():
        shares = [
            (_strongest(ratio, threshold, is_vertical) & outline).sum() / outline.sum().clamp(min=1).double()
            for ratio, outline, is_vertical in zip(ratios, outlines, (False, True, False, True), strict=True)
        ]
        recalls.append(torch.stack(shares).mean())
    weights = (_THRESHOLDS / _THRESHOLDS.sum()).to(depth.device)
    return (torch.stack(recalls) * weights).sum()


def _nearness_ratios(depth: Tensor) -> list[Tensor]:
    """Return how many times as near the left, top, right and bottom pixel of neighbours is as the other."""
    inverse = 1 / depth.double().clamp(min=_MIN_DEPTH_M)
    right, bottom = inverse[:, 1:] / inverse[:, :-1], inverse[1:] / inverse[:-1]
    return [inverse[:, :-1] / inverse[:, 1:], inverse[:-1] / inverse[1:], right, bottom]


def _pairs(valid: Tensor) -> list[Tensor]:
    columns, rows = valid[:, 1:] & valid[:, :-1], valid[1:] & valid[:-1]
    return [columns, rows, columns, rows]


def _hits(ours: Tensor, true: Tensor, known: Tensor) -> list[int]:
    """Return how many boundaries are found rightly, found, and there."""
    ours, true = ours & known, true & known
    return [int((ours & true).sum()), int(ours.sum()), int(true.sum())]


def _strongest(ratio: Tensor, threshold: float, is_vertical: bool) -> Tensor:
    """Return the first largest ratio of every run of neighbours above a threshold, along rows or columns."""
    if is_vertical:
        return _strongest(ratio.T, threshold, is_vertical=False).T
    above = ratio > threshold
    starts = above.clone()
    starts[:, 1:] &= ~above[:, :-1]
    run = starts.flatten().cumsum(dim=0)[above.flatten()] - 1
    if len(run) == 0:
        return above
    values, places = ratio[above], above.flatten().nonzero()[:, 0]
    count = int(run[-1]) + 1
    largest = values.new_full((count,), -math.inf).scatter_reduce(0, run, values, "amax")
    is_largest = values == largest[run]
    first = places.new_full((count,), above.numel()).scatter_reduce(0, run[is_largest], places[is_largest], "amin")
    chosen = torch.zeros_like(above).flatten()
    chosen[first] = True
    return chosen.view_as(above)
