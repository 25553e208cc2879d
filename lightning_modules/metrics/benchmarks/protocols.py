"""Protocols of depth: how a prediction is brought to metres before it is compared. Figures of two never mix."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from geometry.alignment import align_scale_shift
from geometry.alignment.ransac import fit_ransac
from geometry.errors import InputError
from geometry.medians import median
from geometry.parameterization import Parameterization

_MIN_DEPTH_M = 1e-6
_LINEAR, _DISPARITY = Parameterization(), Parameterization("disparity", eps_m=0.0)
_REGISTERED: dict[str, "Protocol"] = {}


@dataclass(frozen=True)
class Aligned:
    """A prediction's way to metres, found on some pixels of an image and valid for all of them.

    Attributes:
        scale: scalar float64.
        shift: scalar float64.
        space: the space in which ``scale * prediction + shift`` is depth.
        low: smallest depth of the result, in metres.
        high: largest.
        before: what is done to the prediction first.
    """

    scale: Tensor
    shift: Tensor
    space: Parameterization
    low: float
    high: float
    before: Callable[[Tensor], Tensor] | None = None

    def __call__(self, prediction: Tensor) -> Tensor:
        """Return depth in metres, float64, of the prediction's shape."""
        values = prediction.double() if self.before is None else self.before(prediction)
        return self.space.undo(self.scale * values + self.shift).clamp(self.low, self.high)


class Protocol(ABC):
    """A way to bring predictions to metres. A subclass with a name is known by it.

    Attributes:
        name: name in options, and before its metrics in tables and tags.
        title: name for people.
        epsilon_m: what is added to the depths that errors and ratios are divided by.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    epsilon_m: ClassVar[float] = 0.0

    def __init_subclass__(cls) -> None:
        """Register the class."""
        super().__init_subclass__()
        _REGISTERED[cls.name] = cls()

    @abstractmethod
    def align(self, prediction: Tensor, depth: Tensor, space: Parameterization, limits: tuple[float, float]) -> Aligned:
        """Return the way to metres of one image.

        Args:
            prediction: (N,) float at the pixels to fit, up to scale and shift in ``space``.
            depth: (N,) float, their depth in metres.
            space: the space that the prediction lives in.
            limits: smallest and largest depth that can be true in this dataset.
        """


class LeastSquares(Protocol):
    """Least squares in the prediction's own space: for depth up to scale and shift, the protocol of Marigold."""

    name = "least_squares"
    title = "least squares in depth"

    def align(self, prediction: Tensor, depth: Tensor, space: Parameterization, limits: tuple[float, float]) -> Aligned:
        """Fit all pixels; clip to the range of the dataset."""
        return Aligned(*_least_squares(prediction, space.apply(depth.double())), space, *_clipping(limits))


class LeastSquaresDisparity(Protocol):
    """Least squares in disparity, as MiDaS and Depth Anything are scored.

    A prediction that is no disparity is brought to metres by ``least_squares`` first, and its inverse is fitted.
    Disparities are not let below that of the farthest depth that can be true, or that is.
    """

    name = "least_squares_disparity"
    title = "least squares in disparity"

    def align(self, prediction: Tensor, depth: Tensor, space: Parameterization, limits: tuple[float, float]) -> Aligned:
        """Fit the inverse of all depths; clip to the range of the dataset, or to the farthest true depth."""
        before = None
        if space.name != "disparity":
            first = LeastSquares().align(prediction, depth, space, limits)
            before = partial(_disparity, first)
            prediction = before(prediction)
        low, high = _clipping(limits)
        farthest = float(depth.max()) if len(depth) and math.isinf(high) else high
        fit = _least_squares(prediction, (space if before is None else _DISPARITY).apply(depth.double()))
        return Aligned(*fit, space if before is None else _DISPARITY, low, farthest, before)


class RansacLog(Protocol):
    """Robust scale and shift with errors taken in the logarithm of depth, the protocol of Pixel-Perfect Depth.

    Convention:
        RANSAC (``geometry.alignment``) with at most 1000 trials, and errors in ln(depth + 1) whose threshold is the
        median absolute deviation of the truth's; a scale of 0 or less is replaced by the ratio of the means. Clipped
        to 1 mm and the farthest true depth. Scale and shift are those of the prediction's own space, so that a perfect
        prediction scores 0 in any. For predictions of ln(depth + 1), a ``Parameterization("log", 1.0)``, that is their
        code's fit; predictions of ln(depth) have errors in ln(depth).

    Source:
        gangweix/pixel-perfect-depth, ``ppd/utils/align_depth_func.py`` and ``depth_estimation_model.py``. Deviation:
        the draws are seeded.
    """

    name = "ransac_log"
    title = "RANSAC in log depth"
    epsilon_m = 1e-5

    def align(self, prediction: Tensor, depth: Tensor, space: Parameterization, limits: tuple[float, float]) -> Aligned:
        """Fit robustly; the limits of the dataset do not matter."""
        high = float(depth.max()) if len(depth) else math.inf
        values, own = prediction.double(), space.apply(depth.double())
        if not bool(values.isfinite().all()):
            return Aligned(own.new_tensor(math.nan), own.new_tensor(math.nan), space, 1e-3, high)
        if space.name == "log":
            fit = fit_ransac(values, own)
        else:
            fit = fit_ransac(values, own, measure=partial(_log1p_of, space), bounds=partial(_bounds_of, space))
        scale, shift = (own.new_tensor(1.0), own.new_tensor(0.0)) if fit is None else (fit.scale, fit.shift)
        if not bool(scale > 0):
            scale, shift = own.mean() / values.mean(), torch.zeros_like(shift)
        return Aligned(scale, shift, space, 1e-3, max(high, 1e-3))


class Median(Protocol):
    """The ratio of the medians, for predictions of depth up to a scale."""

    name = "median"
    title = "median scaling"

    def align(self, prediction: Tensor, depth: Tensor, space: Parameterization, limits: tuple[float, float]) -> Aligned:
        """Fit the median; clip to the range of the dataset."""
        before = partial(_depth_of, space)
        scale = median(depth.double()) / median(before(prediction))
        return Aligned(scale, torch.zeros_like(scale), _LINEAR, *_clipping(limits), before)


class Metric(Protocol):
    """Nothing at all, for predictions in metres."""

    name = "metric"
    title = "metric depth"

    def align(self, prediction: Tensor, depth: Tensor, space: Parameterization, limits: tuple[float, float]) -> Aligned:
        """Only clip to the range of the dataset."""
        one = depth.new_ones((), dtype=torch.float64)
        return Aligned(one, torch.zeros_like(one), space, *_clipping(limits))


def protocol_named(name: str) -> Protocol:
    """Return a protocol.

    Args:
        name: for instance "ransac_log".

    Raises:
        InputError: there is none of that name.
    """
    if name not in _REGISTERED:
        raise InputError(f"there is no protocol {name!r}; choose from {', '.join(_REGISTERED)}.")
    return _REGISTERED[name]


def protocol_titles() -> dict[str, str]:
    """Return the titles of all protocols by name."""
    return {name: protocol.title for name, protocol in _REGISTERED.items()}


def check_protocols(names: Iterable[str]) -> None:
    """Check names of protocols.

    Raises:
        InputError: a name is unknown, or given twice.
    """
    names = list(names)
    for name in names:
        protocol_named(name)
    if len(names) != len(set(names)):
        raise InputError(f"evaluation.protocols names one twice: {', '.join(names)}.")


def _least_squares(prediction: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift, scalars; 0 and the mean where no scale is defined."""
    as_image = (1, 1, 1, -1)
    mask = torch.ones(1, 1, 1, len(values), dtype=torch.bool, device=values.device)
    scale, shift = align_scale_shift(prediction.double().reshape(as_image), values.reshape(as_image), mask)
    return scale[0], shift[0]


def _clipping(limits: tuple[float, float]) -> tuple[float, float]:
    return max(limits[0], _MIN_DEPTH_M), limits[1]


def _disparity(to_depth: Aligned, prediction: Tensor) -> Tensor:
    return 1 / to_depth(prediction)


def _depth_of(space: Parameterization, values: Tensor) -> Tensor:
    return space.undo(values.double())


def _log1p_of(space: Parameterization, values: Tensor) -> Tensor:
    """Return ln(depth + 1) of values of a space; NaN for depth of -1 m or less."""
    return space.undo(values).log1p()


def _bounds_of(space: Parameterization, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of a space between which ln(depth + 1) lies between two bounds."""
    near, far = low.expm1(), high.expm1()
    if space.name == "linear":
        return near, far
    ends = space.apply(near.clamp(min=0)), space.apply(far)
    if space.name.endswith("disparity"):
        return ends[1], torch.where(near > 0, ends[0], torch.inf)
    return torch.where(near > 0, ends[0], -torch.inf), ends[1]
