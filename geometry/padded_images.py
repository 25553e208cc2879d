"""Images with a border, each stored as one long row: what lies beside a pixel is a fixed number of places away.

A pixel's neighbour in any direction is then found by shifting the whole row, and arithmetic on a band of image rows
runs over one piece of memory that fits a processor's cache. NumPy computes, for its calls are the cheapest on so few
numbers. What is computed at the border has no meaning.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Array = np.ndarray

# Arrays of so many numbers stay in a processor's caches, and are worth the calls that compute them.
_BAND_PIXELS = 1 << 16
_BITS = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}


class Padding(NamedTuple):
    """How images of a size are laid out.

    Attributes:
        height: of the image in pixels.
        width: of the image in pixels.
        border: pixels added on each of the four sides.
    """

    height: int
    width: int
    border: int

    @property
    def row(self) -> int:
        """Places from a pixel to the one below it."""
        return self.width + 2 * self.border

    def pad(self, image: Array, value: float) -> Array:
        """Return images (...,H,W) as (...,N), with a value around them."""
        padded = np.full((*image.shape[:-2], self.height + 2 * self.border, self.row), value, image.dtype)
        inside = slice(self.border, -self.border)
        padded[..., inside, inside] = image
        return padded.reshape(*image.shape[:-2], -1)

    def crop(self, padded: Array) -> Array:
        """Return whole rows (...,n) as (...,rows,W), a view without the border at left and right."""
        return padded.reshape(*padded.shape[:-1], -1, self.row)[..., self.border : -self.border]

    def repeat_edges(self, padded: Array) -> None:
        """Give the innermost pixels of the border, in place, the values of the pixels that they touch."""
        image = padded.reshape(*padded.shape[:-1], -1, self.row)
        first, last_row, last = self.border, self.border + self.height, self.border + self.width
        image[..., first - 1, :], image[..., last_row, :] = image[..., first, :], image[..., last_row - 1, :]
        image[..., first - 1], image[..., last] = image[..., first], image[..., last - 1]

    def bands(self) -> Iterator[tuple[int, int, slice]]:
        """Yield first row, end and places of bands of whole rows that fit the cache of a processor."""
        rows = max(1, round(_BAND_PIXELS / self.row))
        for first in range(0, self.height, rows):
            last = min(first + rows, self.height)
            yield first, last, slice((first + self.border) * self.row, (last + self.border) * self.row)


def shifted(padded: Array, band: slice, places: int) -> Array:
    """Return what lies so many places behind each place of a band, a view."""
    return padded[..., band.start + places : band.stop + places]


def bits_of(mask: Array, dtype: np.dtype) -> Array:
    """Return a mask as whole numbers as wide as a type of numbers: all bits are one where it is true, zero elsewhere.

    Args:
        mask: bool.
        dtype: float32 or float64.
    """
    bits = mask.view(np.int8).astype(_BITS[dtype])
    return np.negative(bits, out=bits)


def keep(values: Array, kept: Array) -> Array:
    """Put 0 in the place of what lies outside a mask, also of what is no number.

    Args:
        values: float32 or float64; overwritten.
        kept: the mask's bits, of a shape that broadcasts to that of the values.

    Returns:
        The same values.
    """
    bits = values.view(kept.dtype)
    np.bitwise_and(bits, kept, out=bits)
    return values


def select(kept: Array, values: Array, others: Array | float) -> Array:
    """Return values inside a mask and others outside: ``numpy.where`` by their bits, in a fraction of the time.

    Args:
        kept: the mask's bits, of a shape that broadcasts to that of the values.
        values: float32 or float64.
        others: of the same type and a shape that broadcasts to that of the values, or one number.

    Returns:
        In the shape and type of the values.
    """
    others = np.asarray(others, values.dtype).view(kept.dtype)
    bits = np.bitwise_xor(values.view(kept.dtype), others)
    np.bitwise_and(bits, kept, out=bits)
    return np.bitwise_xor(bits, others, out=bits).view(values.dtype)
