"""The one contract between data modules and estimators: what a batch holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

ANY_VALUE = (-inf, inf)


class Target(NamedTuple):
    """The truth of one modality, for the images of a batch.

    Attributes:
        values: (B,C,H,W) float32, in the modality's unit; 0 where unknown.
        mask: (B,1,H,W) bool, where ``values`` may be used.
    """

    values: Tensor
    mask: Tensor

    def resized(self, size: tuple[int, int]) -> "Target":
        """Return the truth at another size, of the nearest pixels.

        Args:
            size: (height, width) in pixels.
        """
        return Target(*(F.interpolate(tensor.float(), size, mode="nearest").to(tensor.dtype) for tensor in self))


@dataclass(frozen=True)
class DatasetInfo:
    """What is known about the data set that a batch comes from.

    Attributes:
        name: its name, as it appears in logs and results.
        ranges: by modality, the smallest and the largest value that can be true.
        max_fit_size_px: predictions are fitted to the truth on images downsampled to this longest side; None takes
            all pixels.
        num_published: how many images published figures are made on; None if there are none.
        metrics: names of further metrics that its protocol asks for.
        has_own_metrics: whether these stand in place of the metrics of the task, as where nobody measured depth.
    """

    name: str
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    max_fit_size_px: int | None = None
    num_published: int | None = None
    metrics: tuple[str, ...] = ()
    has_own_metrics: bool = False

    def range_of(self, modality: str) -> tuple[float, float]:
        """Return the smallest and the largest value of a modality that can be true.

        Args:
            modality: its name.
        """
        return self.ranges.get(modality, ANY_VALUE)


@dataclass
class GeometryBatch:
    """Images of one data set, all of one size, with what is known about them.

    Convention:
        Depth is planar (along the optical axis, not along the ray) in metres.
        Normals live in the camera frame x right, y up, z toward the viewer: a wall seen head-on is (0, 0, 1).
        A test batch may hold images of another size than the targets, whose size the prediction then takes.

    Attributes:
        image: (B,3,H,W) float32, sRGB in [-1, 1].
        targets: the truth by name of the modality; what the task does not ask for may be missing.
        key: sample ids, one per image.
        dataset: the data set that all images come from.
        camera: (B,3,3) float32, ``camera_from_pixel`` of every image: a pixel's ray of depth 1 is this matrix times
            (column, row, 1) of its centre (see ``geometry.camera``); NaN where the camera is unknown. None stands for
            all unknown.
        references: by name, what single metrics of a benchmark are measured against in place of ``targets``: the same
            truth where another protocol counts other pixels or another size, edges, planes.
    """

    image: Tensor
    targets: dict[str, Target]
    key: list[str]
    dataset: DatasetInfo
    camera: Tensor | None = None
    references: dict[str, Target] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.key)

    def __getitem__(self, images: slice) -> Self:
        """Return a part of the images, as a batch.

        Args:
            images: which of them.
        """
        return replace(self._changed(lambda tensor: tensor[images]), key=self.key[images])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Return the batch on a device.

        Args:
            device: where to.
            non_blocking: whether a copy from page-locked memory may run beside what the device is doing.
        """
        return self._changed(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the batch with every tensor changed alike."""
        targets, references = (
            {name: Target(*map(change, each)) for name, each in found.items()}
            for found in (self.targets, self.references)
        )
        camera = None if self.camera is None else change(self.camera)
        return replace(self, image=change(self.image), targets=targets, camera=camera, references=references)
