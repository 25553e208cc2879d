"""Scores single samples of one data set, and brings together what the ranks found."""

from dataclasses import dataclass, field
from math import inf
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from geometry.batch import GeometryBatch
from lightning_modules.evaluation.exact import ExactSum, merged
from lightning_modules.networks.sizes import resize_prediction
from lightning_modules.tasks import Task

NOTHING_VALID = "no pixel that counts"


@dataclass
class Tally:
    """What is known about a data set so far.

    Attributes:
        total: sums over the samples.
        rows: metrics of every sample, by key.
        problems: why samples were left out, by key.
    """

    total: ExactSum = field(default_factory=ExactSum)
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def gathered(self) -> "Tally":
        """Return what all ranks know together; every rank must call it."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self)
        everything = Tally(merged(part.total for part in parts))
        for part in parts:
            everything.rows |= part.rows
            everything.problems |= part.problems
        return everything


class Scorer:
    """Scores the samples of one data set by its rules.

    Args:
        task: knows the metric.
        depth_range_m: predictions are clipped to this range.
        max_fit_size_px: predictions are fitted on images picked down to this longest side.
    """

    def __init__(
        self, task: Task, depth_range_m: tuple[float, float] = (0.0, inf), max_fit_size_px: int | None = None
    ) -> None:
        self.task, self.depth_range_m, self.max_fit_size_px = task, depth_range_m, max_fit_size_px

    @classmethod
    def for_dataset(cls, task: Task, data: object, name: str) -> "Scorer":
        """Return a scorer with the rules that a data module states for a data set.

        Of the data module are read, where it has them: ``depth_ranges_m`` and ``max_fit_sizes_px``, by data set.

        Args:
            task: knows the metric.
            data: the data module.
            name: the data set.
        """
        depth_range_m = getattr(data, "depth_ranges_m", {}).get(name, (0.0, inf))
        return cls(task, depth_range_m, getattr(data, "max_fit_sizes_px", {}).get(name))

    def score(self, tally: Tally, prediction: Tensor, sample: GeometryBatch) -> bool:
        """Add a sample to a tally, and return whether there was anything to score.

        Args:
            tally: what the sample is added to.
            prediction: (1,C,h,w) float; resized to the size of the ground truth.
            sample: one image with its ground truth.
        """
        truth = sample[self.task.required_keys[0]]  # type: ignore[literal-required]
        metric = self._metric().to(truth.device)
        self.task.update_metric(metric, resize_prediction(prediction.float(), truth.shape[-2:]), sample)
        key = sample["key"][0]
        if int(cast(Tensor, metric.num_images)) == 0:
            tally.problems[key] = NOTHING_VALID
            return False
        tally.total.add(metric)
        tally.rows[key] = _values(metric)
        return True

    def overall(self, tally: Tally) -> dict[str, float]:
        """Return the metrics of the whole data set; NaN without any sample."""
        return _values(tally.total.fill(self._metric()))

    def _metric(self) -> Metric:
        """Return a metric of one rank alone: it must not wait for others, which have other samples."""
        metric = self.task.make_metric(self.depth_range_m, self.max_fit_size_px)
        metric.distributed_available_fn = _never
        return metric


def sample_of(batch: GeometryBatch, index: int) -> GeometryBatch:
    """Return one sample of a batch, as a batch of one.

    Args:
        batch: any batch.
        index: which sample.
    """
    cut = {
        name: value[index : index + 1] if isinstance(value, torch.Tensor | list) else value
        for name, value in batch.items()
    }
    return cast(GeometryBatch, cut)


def _never() -> bool:
    return False


def _values(metric: Metric) -> dict[str, float]:
    return {name: float(value) for name, value in metric.compute().items()}
