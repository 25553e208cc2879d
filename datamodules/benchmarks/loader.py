"""Batches of one benchmark sample each, dealt out to the ranks; samples that cannot be scored are named, not lost."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import webdataset
from torch import Tensor
from torch.nn.functional import interpolate

from datamodules.benchmarks.files import BenchmarkFiles
from datamodules.benchmarks.protocol import Array, Benchmark, Entry, NoGroundTruthError, Sample
from datamodules.streaming.loading import Workers, data_loader
from datamodules.streaming.pipelines import for_this_process
from geometry.batch import GeometryBatch, Target

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Unscored:
    """A sample that cannot be scored, on its way from a loader process."""

    key: str
    reason: str


@dataclass
class BenchmarkLoader:
    """Batches of one sample; sample i goes to rank ``i mod world_size``.

    The image has the size at which it is to be predicted, the ground truth its own.

    Attributes:
        benchmark: the data set and its protocol.
        files: its files.
        entries: its samples.
        longest_side_px: images are shrunk to this longest side; None keeps their size.
        workers: how batches are made in the background.
        problems: why samples were left out, by key; filled while iterating.
        color_cast: give images the colours of the released evaluation of normals; see ``cast_colors``.
    """

    benchmark: Benchmark
    files: BenchmarkFiles
    entries: list[Entry]
    longest_side_px: int | None
    workers: Workers
    problems: dict[str, str] = field(default_factory=dict)
    color_cast: bool = False

    def __len__(self) -> int:
        """At least 1: a rank for which all loaders were empty would be left out of the test, and the others wait."""
        return max(1, len(self.own_entries()))

    def __iter__(self) -> Iterator[GeometryBatch]:
        pipeline = webdataset.DataPipeline(self.own_entries, for_this_process, webdataset.map(self.load))
        for item in data_loader(pipeline, self.workers):
            if isinstance(item, Unscored):
                self.problems[item.key] = item.reason
            else:
                yield item

    def own_entries(self) -> list[Entry]:
        """Return the samples of this rank."""
        return self.entries[self.workers.rank :: self.workers.world_size]

    def load(self, entry: Entry) -> GeometryBatch | Unscored:
        """Return the batch of a sample, or what hinders it.

        Args:
            entry: the sample.
        """
        try:
            sample = self.benchmark.load(self.files, entry)
            if sample.image.shape[:2] != sample.truth.shape[:2] and self.benchmark.has_equal_sizes:
                raise ValueError(f"image and truth have {sample.image.shape[:2]} and {sample.truth.shape[:2]} pixels")
        except NoGroundTruthError as error:
            return Unscored(entry.key, str(error))
        except (OSError, ValueError, MemoryError) as error:
            return Unscored(entry.key, f"unreadable ({error})")
        return self._batch(sample, entry)

    def _batch(self, sample: Sample, entry: Entry) -> GeometryBatch:
        image = image_tensor(cast_colors(sample.image) if self.color_cast else sample.image, self.longest_side_px)
        targets = {self.benchmark.modality: _target(sample.truth, sample.mask)}
        references = {name: _target(*reference) for name, reference in sample.references.items()}
        camera = None if sample.camera is None else torch.from_numpy(sample.camera)[None].float()
        return GeometryBatch(image, targets, [entry.key], self.benchmark.info, camera, references)


def _target(values: Array, mask: Array) -> Target:
    """Return (H,W) or (H,W,C) values and their mask (H,W) as a target of one image."""
    planes = torch.from_numpy(np.ascontiguousarray(values))
    planes = planes[None] if planes.ndim == 2 else planes.permute(2, 0, 1)
    return Target(planes[None].contiguous(), torch.from_numpy(np.ascontiguousarray(mask))[None, None])


def image_tensor(image: Array, longest_side_px: int | None) -> Tensor:
    """Return an image as (1,3,H,W) float32 in [-1, 1], shrunk if it is too large.

    Convention:
        Shrunk with an antialiased bilinear filter and rounded to whole levels; sides are rounded down. That is what
        Marigold's pipeline does: 6048x4032 at a longest side of 756 becomes 756x504.

    Args:
        image: (H,W,3) uint8.
        longest_side_px: largest side of the result; None keeps the size.
    """
    planes = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    height, width = image.shape[:2]
    if longest_side_px is not None and longest_side_px < max(height, width):
        shrink = min(longest_side_px / width, longest_side_px / height)
        size = (int(height * shrink), int(width * shrink))
        planes = interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False).round().clamp(0, 255)
    return planes / 255 * 2 - 1


def cast_colors(image: Array) -> Array:
    """Return an image as the released evaluation of normals of the paper's authors shows it to the network.

    Convention:
        DSINE's loader normalises each channel by ImageNet's mean and deviation, and the evaluation brings the result
        back to 0 to 255 by its smallest and largest number over all channels, not by what it was normalised with. An
        image that spans all levels ends with red from 0 to 234, green from 4 to 243 and blue from 16 to 255: a
        colour cast; one that does not is stretched besides. Levels are rounded down.

    Args:
        image: (H,W,3) uint8.

    Returns:
        (H,W,3) uint8.

    Source:
        Martin Garcia et al., public evaluation code of normals; Bae and Davison, DSINE, data loader.
    """
    normalised = (image.astype(np.float32) / 255 - _IMAGENET_MEAN) / _IMAGENET_DEVIATION
    low, high = normalised.min(), normalised.max()
    return ((normalised - low) / max(high - low, np.float32(1e-6)) * 255).astype(np.uint8)
