"""How the values of a modality lie in shards: their type, what is unknown, how they change size, what is wrong.

Here, values are numpy arrays of one image in the shape of ``stored_shape``: (H,W) for a single channel, else (C,H,W).
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from geometry.batch import ANY_VALUE
from geometry.errors import InputError
from geometry.modalities.codings import Coding

Array = np.ndarray
Size = tuple[int, int]

_SHARES = (0, 0.02, 0.98, 1)
_SHARE_NAMES = ("min", "q02", "q98", "max")


class Facts(NamedTuple):
    """What is worth recording about the values of one image.

    Attributes:
        share: share of pixels whose value is known, from 0 to 1.
        quantiles: smallest number, 2 % and 98 % quantile and largest number; None where nothing is counted.
        known: (H,W) bool, where the value is known.
        numbers: (N,) what ``Stored.numbers`` returned.
    """

    share: float
    quantiles: tuple[float | None, ...]
    known: Array
    numbers: Array


class Comparison(NamedTuple):
    """What came of comparing the values of a modality with those of another one.

    Attributes:
        difference: median over the image, in ``difference_unit``; None if nothing could be compared.
        problem: what is wrong; empty if nothing is.
    """

    difference: float | None = None
    problem: str = ""


class Stored:
    """How a modality is stored; the base of ``Modality``.

    Attributes:
        name: name in shards, options and file names.
        num_channels: number of channels C.
        unit: unit of values; empty for none.
        unknown: the stored value that stands for an unknown one, in every channel.
        may_store_nan: whether a stored NaN stands for an unknown value, too; elsewhere it is a fault.
        possible_values: smallest and largest value that there can be in any data set.
        counts_for_quality: whether an image that lacks many values may be left out for that.
        has_image_files: whether image files (.jpg, .png of 8 bits) can hold it.
        compared_with: the modality that ``compare`` compares it with; empty for none.
        difference_unit: unit of what ``compare`` finds.
        coding: how shards of format 2 hold it where that is not as ``store`` says; None if there is no other way.
    """

    name: ClassVar[str]
    num_channels: ClassVar[int]
    unit: ClassVar[str] = ""
    unknown: ClassVar[float] = 0.0
    may_store_nan: ClassVar[bool] = False
    possible_values: ClassVar[tuple[float, float]] = ANY_VALUE
    counts_for_quality: ClassVar[bool] = True
    has_image_files: ClassVar[bool] = False
    compared_with: ClassVar[str] = ""
    difference_unit: ClassVar[str] = ""
    coding: ClassVar[Coding | None] = None

    @classmethod
    def stored_shape(cls, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of stored values: (C,H,W), or (H,W) for a single channel."""
        return (height, width) if cls.num_channels == 1 else (cls.num_channels, height, width)

    def store(self, values: Array) -> Array:
        """Return values in the type in which they are stored: float16.

        Args:
            values: float32.
        """
        return values.astype(np.float16)

    def is_known(self, values: Array) -> Array:
        """Return (H,W) bool; by default, what differs from ``unknown`` in a channel is known.

        Args:
            values: of any floating type, stored ones or not.
        """
        differs = values != self.unknown
        return differs if values.ndim == 2 else differs.any(axis=0)

    def numbers(self, values: Array, known: Array) -> Array:
        """Return (N,) the numbers whose range and quantiles are worth knowing: by default, those of known pixels.

        Args:
            values: of any floating type.
            known: (H,W) bool, what ``is_known`` says of them.
        """
        return values[..., known].reshape(-1)

    def facts(self, values: Array) -> Facts:
        """Return what is worth recording about the values of one image.

        Args:
            values: float32, before they are stored.
        """
        known = self.is_known(values)
        numbers = self.numbers(values, known)
        quantiles = np.quantile(numbers, _SHARES) if numbers.size else (None,) * len(_SHARES)
        rounded = tuple(None if value is None else float(f"{value:.6g}") for value in quantiles)
        return Facts(round(np.count_nonzero(known) / known.size, 6), rounded, known, numbers)

    def describe(self, facts: Facts) -> dict[str, float | None]:
        """Return facts by the names under which a sample's JSON holds them.

        Args:
            facts: what ``facts`` returned.
        """
        end = f"_{self.unit}" if self.unit else ""
        quantiles = zip(_SHARE_NAMES, facts.quantiles, strict=True)
        return {f"{self.name}_share": facts.share} | {f"{self.name}_{name}{end}": value for name, value in quantiles}

    def describe_range(self, low: float | None, high: float | None) -> str:
        """Return a range of values for people, such as "0.50 .. 7.25 m"; "-" if there is none."""
        return "-" if low is None or high is None else f"{low:.2f} .. {high:.2f} {self.unit}".rstrip()

    def resize(self, values: Array, size: Size) -> Array:
        """Return values of another size; by default, each is one of the old ones.

        Args:
            values: float32.
            size: (height, width) wanted.
        """
        return resize_nearest(values, size)

    def read_file(self, numbers: Array) -> Array:
        """Return the values that a file of a user's own holds; what cannot be a value becomes unknown.

        By default, floating-point numbers are values, and whole numbers from 0 to the maximum of their type stand for
        the possible values from the smallest to the largest.

        Args:
            numbers: (H,W) or (H,W,C), as the file stores them.

        Returns:
            float32, in the shape of ``stored_shape``.

        Raises:
            InputError: numbers of this type have no meaning.
        """
        low, high = self.possible_values
        if numbers.dtype.kind == "u" and np.isfinite((low, high)).all():
            values = numbers.astype(np.float32) * np.float32((high - low) / np.iinfo(numbers.dtype).max) + low
        elif numbers.dtype.kind == "f":
            values = numbers.astype(np.float32)
        else:
            raise InputError(f"numbers of type {numbers.dtype} have no meaning as {self.name}; store float32")
        values = values if values.ndim == 2 else np.moveaxis(values, -1, 0)
        possible = np.isfinite(values) & (values >= low) & (values <= high)
        return np.where(possible if values.ndim == 2 else possible.all(axis=0), values, np.float32(self.unknown))

    def problems(self, values: Array, limits: tuple[float, float]) -> Iterator[str]:
        """Yield what is wrong with stored values of the right shape; by default, numbers that are no values.

        Args:
            values: float32, as stored.
            limits: smallest and largest value that can be true in this data set, as rounded as stored values are.
        """
        known = values[..., self.is_known(values)]
        if not np.isfinite(values).all():
            yield f"{self.name} holds NaN or infinite numbers"
        elif known.size and (known.min() < limits[0] or known.max() > limits[1]):
            yield f"{self.name} from {known.min():.4g} to {known.max():.4g} leaves {limits[0]:.4g} to {limits[1]:.4g}"

    def compare(self, targets: Mapping[str, Array], camera: Any, pixel_center: float) -> Comparison:  # noqa: ANN401
        """Compare stored values with those of the modality ``compared_with``; nothing by default.

        Args:
            targets: stored values by modality, without other problems.
            camera: ``camera_from_pixel``, rows of numbers.
            pixel_center: coordinate of the centre of the first pixel.
        """
        return Comparison()


def rounded_limits(limits: tuple[float, float]) -> tuple[float, float]:
    """Return limits as rounded as stored values are: else values on them would fall outside."""
    low, high = (float(np.float16(limit)) for limit in limits)
    return low, high


def resize_nearest(values: Array, size: Size) -> Array:
    """Return values resized by taking, for every new pixel, the old pixel that its centre falls into.

    Args:
        values: (...,H,W) array.
        size: (height, width) wanted.

    Returns:
        (...,height,width), same type; every value is one of the old ones.
    """
    if values.shape[-2:] == tuple(size):
        return values
    rows, columns = map(nearest_places, values.shape[-2:], size)
    return values[..., rows[:, None], columns]


def nearest_places(old: int, new: int) -> Array:
    """Return which of ``old`` pixels in a row the centre of each of ``new`` falls into; (new,) int64."""
    return np.floor((np.arange(new) + 0.5) * old / new).astype(np.int64)
