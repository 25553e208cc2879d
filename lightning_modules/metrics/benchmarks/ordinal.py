"""Which of two points is nearer, for images whose depth nobody has measured."""

import torch
from torch import Tensor

from geometry.batch import Target
from geometry.parameterization import Parameterization
from lightning_modules.metrics.base import GeometryMetric


class OrdinalAccuracy(GeometryMetric):
    """The share of pairs of points whose nearer one is predicted to be nearer, over all pairs of a dataset.

    Convention:
        Needs the reference ``pairs``: values (B,7,1,N), row and column of the first and of the second point, the number
        of the nearer one (1 or 2), height and width of the image that rows and columns count in. Equal predictions
        are wrong. ``ordinal_accuracy``, and ``ordinal_error``, 1 - accuracy.

    Args:
        space: The space that predictions live in; in disparity, what is near is large.

    Source:
        The DA-2K benchmark of Yang et al., "Depth Anything V2", 2024.
    """

    num_right: Tensor
    num_pairs: Tensor
    headline = "ordinal_error"
    knows_modality = True
    reference, needs_reference = "pairs", True

    def __init__(self, space: Parameterization | None = None) -> None:
        super().__init__()
        self.space = space or Parameterization()
        for name in ("num_right", "num_pairs", "num_images"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def size_of(self, target: Target) -> tuple[int, int]:
        """Return the size of the image that the points were marked in."""
        height, width = target.values[0, 5:, 0, 0].tolist()
        return int(height), int(width)

    def update(self, prediction: Tensor, target: Tensor, valid_mask: Tensor) -> None:
        """Add images.

        Args:
            prediction: (B,1,H,W) float.
            target: (B,7,1,N) float, the pairs.
            valid_mask: (B,1,1,N) bool, which of them there are.
        """
        sign = -1 if self.space.name.endswith("disparity") else 1
        for image, pairs, valid in zip(prediction, target, valid_mask, strict=True):
            first_row, first_column, second_row, second_column, nearer = pairs[:5, valid[0]].long()
            first, second = sign * image[0, first_row, first_column], sign * image[0, second_row, second_column]
            self.num_right += torch.where(nearer == 1, first < second, second < first).sum()
            self.num_pairs += len(nearer)
            self.num_images += len(nearer) > 0

    def compute(self) -> dict[str, Tensor]:
        """Return accuracy and error; NaN without any pair."""
        accuracy = self.num_right.double() / self.num_pairs
        return {"ordinal_error": 1 - accuracy, "ordinal_accuracy": accuracy}
