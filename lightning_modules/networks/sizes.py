"""Images of any size: padded for the network, and predictions brought to the size of the ground truth."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, factor: int) -> Tensor:
    """Return an image whose sides are multiples of a factor, by repeating its last column and row.

    Args:
        image: (B,C,H,W).
        factor: what both sides must be multiples of.

    Returns:
        (B,C,H',W'); its first H rows and W columns are the image.
    """
    height, width = image.shape[-2:]
    right, bottom = -width % factor, -height % factor
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if right or bottom else image


def resize_prediction(prediction: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a prediction at the size of its ground truth, resized with an antialiased bilinear filter.

    Args:
        prediction: (B,C,H,W) float. Normals change their length where they are averaged.
        size: (height, width) wanted.
    """
    if tuple(prediction.shape[-2:]) == tuple(size):
        return prediction
    return F.interpolate(prediction.float(), size, mode="bilinear", antialias=True, align_corners=False)
