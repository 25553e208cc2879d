"""How far several predictions of the same images lie apart."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from geometry.errors import InputError, check_choice
from geometry.modalities import Modality
from lightning_modules.uncertainty.views import FLIP, VIEWS

UncertaintyBy = Literal["flip", "views", "ensemble"]

_MOST_MEMBERS = 1000
_VIEWS = {"flip": FLIP, "views": VIEWS}


@dataclass(frozen=True)
class Uncertainty:
    """What a prediction's uncertainty is measured by.

    Attributes:
        by: flip compares with the prediction of the mirrored image; views also with those of the image shifted by 5
            pixels, at 0.8 and at 1.25 times its size; ensemble compares predictions from different noise.
        num_members: predictions of an ensemble, at least 2.

    Raises:
        InputError: a setting makes no sense.
    """

    by: UncertaintyBy
    num_members: int = 10

    def __post_init__(self) -> None:
        check_choice("uncertainty", self.by, get_args(UncertaintyBy))
        if not 2 <= self.num_members <= _MOST_MEMBERS:
            raise InputError(
                f"an ensemble that shows uncertainty needs 2 to {_MOST_MEMBERS} members, got {self.num_members}."
            )

    def check(self, draws_noise: bool) -> None:
        """Make sure that a model can be asked.

        Args:
            draws_noise: whether its predictions depend on noise.

        Raises:
            InputError: they do not, and an ensemble would be of equals.
        """
        if self.by == "ensemble" and not draws_noise:
            raise InputError(
                "uncertainty by ensemble needs a model that predicts from noise, as a DiffusionEstimator or a network "
                "with noise gaussian does; this one gives every member the same prediction: take flip or views."
            )

    def spread(
        self,
        prediction: Tensor,
        image: Tensor,
        predict: Callable[[Tensor, int | None], Tensor],
        modality: Modality,
        size_multiple: int,
    ) -> Tensor:
        """Return the spread (B,1,H,W) of predictions of images, by the rules of the modality.

        Args:
            prediction: (B,C,H,W), that of the images as they are.
            image: (B,3,H,W) whose sides are multiples of ``size_multiple``.
            predict: maps such images and the number of a member of an ensemble to predictions (B,C,H,W); None is the
                prediction as it is without any.
            modality: what is predicted.
            size_multiple: of the network.
        """
        if self.by == "ensemble":
            return modality.spread(torch.stack([predict(image, number) for number in range(self.num_members)]))
        views = _VIEWS[self.by]
        others = [view.predict(image, lambda seen: predict(seen, None), modality, size_multiple) for view in views]
        return modality.spread(torch.stack([prediction, *others]))
