"""What preparation asks of a raw data set. A new data set is one class with these members."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class PreparedSample:
    """A frame in the project's own units and axes, ready to be stored.

    Attributes:
        image: (H,W,3) uint8, sRGB.
        targets: by modality, float32 values of the image's size in the shape that the modality stores them in;
            ``unknown`` of the modality where they are unknown or outside the range of the data set.
        camera_from_pixel: (3,3) float64, camera of the stored image (see ``geometry.camera``); None if it is unknown.
        pixel_center: coordinate of the centre of the first pixel, 0.5 or 0.
        info: what else is worth recording about the sample; JSON values.
    """

    image: Array
    targets: dict[str, Array]
    camera_from_pixel: Array | None
    pixel_center: float
    info: dict[str, Any]


class Frame(Protocol):
    """What identifies a frame of a raw data set."""

    @property
    def key(self) -> str:
        """Id of the sample: no dot, no slash."""


@dataclass(frozen=True)
class FrameList:
    """The frames to prepare.

    Attributes:
        splits: frames by split ("train", "val", ...), in their natural order.
        notices: what a person should know about the selection, one sentence each.
    """

    splits: dict[str, list[Any]]
    notices: list[str] = field(default_factory=list)

    @classmethod
    def parted(cls, frames: Iterable[Any], is_held_out: Callable[[Any], bool], notices: list[str]) -> Self:
        """Return the frames to train on and those held out for validation, each split only if it has any."""
        splits: dict[str, list[Any]] = {"train": [], "val": []}
        for frame in frames:
            splits["val" if is_held_out(frame) else "train"].append(frame)
        return cls({split: members for split, members in splits.items() if members}, notices)


class RawDataset(Protocol):
    """A data set in the layout it was released in. Implementations can be pickled."""

    @property
    def name(self) -> str:
        """Name of the prepared data set."""

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of every prepared sample."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that every sample holds, in the order in which they are stored."""

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """By modality, the smallest and the largest value that counts as valid, where there are such limits."""

    def options(self) -> dict[str, Any]:
        """Return the choices that shape the samples, for ``dataset.json``: no paths of this machine."""

    def list_frames(self) -> FrameList:
        """Return the frames that there are."""

    def load(self, frame: Any) -> PreparedSample:  # noqa: ANN401
        """Return a frame in the project's own units and axes."""
