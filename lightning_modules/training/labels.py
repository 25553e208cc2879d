"""Text in panels of visualisations: titles of columns, keys of samples."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geometry.modalities import Modality

_HEIGHT_PX = 16
_LETTER_PX = 6.6


def panel_titles(modalities: Sequence[Modality]) -> list[str]:
    """Return the titles of the columns image and, per modality, prediction, ground truth and error with its range."""
    titles = ["image"]
    for modality in modalities:
        error = f"error 0..{modality.worst_error:g}, {modality.error_name}, white to red"
        titles += [f"{modality.name} predicted", f"{modality.name} true", error]
    return titles


def title_band(texts: Sequence[str], width_px: int) -> Tensor:
    """Return a white band with a text at the start of each column; what does not fit is cut off.

    Args:
        texts: one a column.
        width_px: width of a column.

    Returns:
        (3,h,len(texts) * width_px) float32 in [0, 1].
    """
    import cv2

    band = np.full((_HEIGHT_PX, width_px * len(texts), 3), 255, np.uint8)
    for column, text in enumerate(texts):
        shown = _fitting(text.encode("ascii", "replace").decode(), int(width_px / _LETTER_PX))
        place = (column * width_px + 2, _HEIGHT_PX - 5)
        cv2.putText(band, shown, place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    return torch.from_numpy(band).permute(2, 0, 1).float() / 255


def _fitting(text: str, num_letters: int) -> str:
    """Return what fits of a text, up to its last comma if there is one."""
    if len(text) <= num_letters:
        return text
    return text[:num_letters].rpartition(",")[0] or text[:num_letters]
