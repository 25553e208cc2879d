"""Small visualisations of single samples: image, prediction, ground truth, error."""

import torch
import torch.nn.functional as F
from torch import Tensor

from geometry.batch import GeometryBatch
from geometry.colorize import eight_bit
from lightning_modules.inference.results import jpeg_bytes
from lightning_modules.networks.sizes import resize_prediction
from lightning_modules.tasks import Task

_GAP_PX = 4


def paint_sample(task: Task, prediction: Tensor, sample: GeometryBatch, width_px: int = 320) -> bytes:
    """Return a JPEG of image, prediction, ground truth and error side by side; the first two where nothing is known.

    Args:
        task: paints.
        prediction: (1,C,h,w) float, in the task's own terms.
        sample: one image with its ground truth, which may be of another size.
        width_px: width of each part.
    """
    target = task.target(sample)
    height, width = target.values.shape[-2:]
    size = (max(1, round(height * width_px / width)), width_px)
    image = resize_prediction(sample.image, size) / 2 + 0.5
    resized = resize_prediction(prediction, size)
    visualisations: tuple[Tensor, ...] = (task.modality.colorize(task.modality.publish(resized)),)
    if target.mask.any():
        visualisations = task.modality.visualize(resized, target.resized(size))
    tiles = [F.pad(tile.clamp(0, 1).cpu(), (0, _GAP_PX), value=1.0) for tile in (image, *visualisations)]
    return jpeg_bytes(eight_bit(torch.cat(tiles, dim=3)[0, :, :, :-_GAP_PX]).numpy())
