"""Text in panels of visualisations: titles of columns, keys of samples, colour bars."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from geometry.colorize import colorize_error
from geometry.modalities import Modality

_HEIGHT_PX = 16
_LETTER_PX = 6.6
_BAR_PX = 8


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
    texts = [_fitting(text.encode("ascii", "replace").decode(), int(width_px / _LETTER_PX)) for text in texts]
    return _written([(column * width_px + 2, text) for column, text in enumerate(texts)], width_px * len(texts))


def colour_bars(modalities: Sequence[Modality], width_px: int, gap_px: int) -> Tensor:
    """Return a band with a colour bar under each column that has a range, and what its ends mean.

    Args:
        modalities: of the columns, as ``panel_titles`` lists them.
        width_px: width of a column.
        gap_px: of it, what is left free at the right.

    Returns:
        (3,h,columns * width_px) float32 in [0, 1].
    """
    ramp = torch.linspace(0, 1, width_px - gap_px)[None, None, None]
    bars: list[tuple[Tensor | None, tuple[str, str]]] = [(None, ("", ""))]
    for modality in modalities:
        low, high = modality.value_range
        colours = None if modality.ends is None else modality.colorize(low + (high - low) * ramp)
        bars += [(colours, modality.ends or ("", ""))] * 2
        worst = modality.worst_error
        bars.append((colorize_error(ramp * worst, torch.ones_like(ramp).bool(), worst), ("0", f"{worst:g}")))
    picture, texts = torch.ones(3, _BAR_PX, width_px * len(bars)), []
    for column, (colours, (first, last)) in enumerate(bars):
        start, end = column * width_px, (column + 1) * width_px - gap_px
        if colours is not None:
            picture[:, :, start:end] = colours[0]
        texts += [(start, first), (end - round(_LETTER_PX * len(last)), last)]
    return torch.cat([picture, _written(texts, picture.shape[2])], dim=1)


def _written(texts: Sequence[tuple[int, str]], width_px: int) -> Tensor:
    """Return a white band (3,h,w) with texts at their places from the left, in pixels."""
    import cv2

    band = np.full((_HEIGHT_PX, width_px, 3), 255, np.uint8)
    for place, text in texts:
        cv2.putText(band, text, (place, _HEIGHT_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
    return torch.from_numpy(band).permute(2, 0, 1).float() / 255


def _fitting(text: str, num_letters: int) -> str:
    """Return what fits of a text, up to its last comma if there is one."""
    if len(text) <= num_letters:
        return text
    return text[:num_letters].rpartition(",")[0] or text[:num_letters]
