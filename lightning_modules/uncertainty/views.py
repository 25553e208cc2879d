"""The same image seen a little differently: mirrored, shifted, smaller, larger."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from geometry.modalities import Modality
from lightning_modules.networks.sizes import pad_to_multiple


@dataclass(frozen=True)
class View:
    """A change of an image, which a prediction of it can be freed from.

    Attributes:
        is_mirrored: left and right change places.
        scale: sides of the image by those of the original.
        shift_px: columns and rows repeated at the left and at the top, so that everything moves by as much.
    """

    is_mirrored: bool = False
    scale: float = 1.0
    shift_px: int = 0

    def predict(
        self, image: Tensor, predict: Callable[[Tensor], Tensor], modality: Modality, size_multiple: int
    ) -> Tensor:
        """Return the prediction (B,C,H,W) of images that is made of this view of them.

        Args:
            image: (B,3,H,W).
            predict: maps such images, whose sides are multiples of ``size_multiple``, to predictions.
            modality: what is predicted.
            size_multiple: of the network.
        """
        size = image.shape[-2:]
        seen = image
        if self.scale != 1:
            scaled = [max(1, round(side * self.scale)) for side in size]
            seen = F.interpolate(seen, scaled, mode="bilinear", antialias=True)
        if self.shift_px:
            seen = F.pad(seen, (self.shift_px, 0, self.shift_px, 0), mode="replicate")
        if self.is_mirrored:
            seen = seen.flip(-1)
        height, width = seen.shape[-2:]
        found = predict(pad_to_multiple(seen, size_multiple))[..., :height, :width]
        if self.is_mirrored:
            found = found.flip(-1)
            modality.mirror_(found)
        found = found[..., self.shift_px :, self.shift_px :]
        if self.scale != 1:
            found = modality.renormalize(F.interpolate(found, size, mode="bilinear", antialias=True))
        return found


# What a prediction is compared with.
FLIP = (View(is_mirrored=True),)
VIEWS = (*FLIP, View(shift_px=5), View(scale=0.8), View(scale=1.25))
