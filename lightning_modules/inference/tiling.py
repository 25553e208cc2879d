"""Images too large for one pass: overlapping tiles, aligned and blended."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from geometry.alignment.members import align_members

Place = tuple[slice, slice]


def blend_tiles(image: Tensor, tile: int, overlap: int, predict: Callable[[Tensor, Place], Tensor]) -> Tensor:
    """Return a prediction that is put together from those of overlapping tiles.

    A tile counts less toward its edges, linearly over ``overlap``, so that no seam remains where tiles differ.

    Args:
        image: (3,H,W).
        tile: longest side of a tile in pixels.
        overlap: least number of pixels that neighbours share, less than ``tile``.
        predict: maps a tile (3,h,w) and its place (rows, columns) to a prediction (C,h,w).

    Returns:
        (C,H,W), dtype and device of the predictions.
    """
    height, width = image.shape[-2:]
    total, weights = torch.empty(0), torch.zeros(height, width)
    for place in tile_places(height, width, tile, overlap):
        prediction = predict(image[(..., *place)], place)
        weight = _ramp(place[0], height, overlap)[:, None] * _ramp(place[1], width, overlap)
        if not total.numel():
            total = prediction.new_zeros(len(prediction), height, width)
        total[(..., *place)] += weight * prediction
        weights[place] += weight
    return total.div_(weights)


def tile_places(height: int, width: int, tile: int, overlap: int) -> Iterator[Place]:
    """Yield the places of tiles that cover an image, all of one size, row by row.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        tile: longest side of a tile in pixels.
        overlap: least number of pixels that neighbours share.
    """
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def align_to(prediction: Tensor, guide: Tensor) -> Tensor:
    """Return a tile's depth, scaled and shifted to fit a guide in the sense of least squares.

    Where no positive scale fits, for instance because the tile or the guide is flat, it is shifted only.

    Args:
        prediction: (1,h,w) depth.
        guide: (1,h,w) depth of the same place.
    """
    return align_members(torch.stack([guide, prediction])[:, None])[1, 0]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    if length <= tile:
        return [0]
    number = math.ceil((length - overlap) / (tile - overlap))
    return [round(index * (length - tile) / (number - 1)) for index in range(number)]


def _ramp(place: slice, length: int, overlap: int) -> Tensor:
    """Return the weights along one axis: falling toward edges that are not the image's, never 0."""
    position = torch.arange(place.start, place.stop) + 0.5
    before = (position - place.start) / overlap if place.start > 0 else torch.ones_like(position)
    after = (place.stop - position) / overlap if place.stop < length else torch.ones_like(position)
    return torch.minimum(before, after).clamp(max=1)
