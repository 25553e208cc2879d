"""What several predictions of one image say together: one prediction, and how far apart they lie."""

from typing import ClassVar

import torch
from torch import Tensor

from geometry.batch import Target


class SeveralPredictions:
    """The part of a modality that concerns several predictions of the same images.

    Convention:
        A *spread* is the standard deviation of the members at a pixel, with N - 1 in the denominator, so that it does
        not depend on how many there are. It is (B,1,H,W), however many channels the modality has.

    Attributes:
        spread_unit: unit of ``calibration_error`` and of what ``spread_in_unit`` returns.
        largest_spread: published spread that a 16-bit image holds as 65535.
    """

    spread_unit: ClassVar[str] = ""
    largest_spread: ClassVar[float] = 1.0

    def ensemble(self, members: Tensor) -> Tensor:
        """Return one prediction for several predictions of the same images; their median by default.

        Args:
            members: (N,B,C,H,W) float32.

        Returns:
            (B,C,H,W).
        """
        return members.median(dim=0).values

    def spread(self, members: Tensor) -> Tensor:
        """Return how far several predictions of the same images lie apart; the root mean square over the channels.

        Args:
            members: (N,B,C,H,W) float, N at least 2, as ``from_image`` or ``to_affine`` return them.

        Returns:
            (B,1,H,W), in the unit of the members.
        """
        return members.var(dim=0).mean(dim=1, keepdim=True).sqrt()

    def publish_spread(self, affine: Tensor, spread: Tensor) -> Tensor:
        """Return the spread of published values; as it is by default.

        Args:
            affine: (B,C,H,W) float, the prediction as ``to_affine`` returns it.
            spread: (B,1,H,W) float, the spread of such predictions.
        """
        return spread

    def spread_in_unit(self, prediction: Tensor, spread: Tensor, target: Target) -> Tensor:
        """Return a spread in the unit of ``calibration_error``; as it is by default.

        Args:
            prediction: (B,C,H,W) float, as ``from_image`` returns it.
            spread: (B,1,H,W) float, the spread of such predictions.
            target: the truth, which says no more than the scale.
        """
        return spread

    def calibration_error(self, aligned: Tensor, target: Target) -> Tensor:
        """Return the error of every pixel that a spread is compared with: by default the root mean square of channels.

        Args:
            aligned: (B,C,H,W) float, a prediction beside the truth.
            target: the truth.

        Returns:
            (B,1,H,W), anything where the truth is unknown.
        """
        return torch.linalg.vector_norm(aligned - target.values, dim=1, keepdim=True) / aligned.shape[1] ** 0.5
