"""Scores single samples of one data set, and brings together what the ranks found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from geometry.batch import DatasetInfo, GeometryBatch
from lightning_modules.evaluation.exact import ExactSum, merged
from lightning_modules.metrics.base import GeometryMetric, all_scores
from lightning_modules.metrics.benchmarks.choice import MetricChoice
from lightning_modules.metrics.calibration import Calibration
from lightning_modules.networks.sizes import resize_prediction
from lightning_modules.tasks import Task

NOTHING_VALID = "no pixel that counts"


@dataclass
class Tally:
    """What is known about a data set so far.

    Attributes:
        totals: sums over the samples, by number of the metric.
        rows: metrics of every sample, by key.
        problems: why samples were left out, by key.
    """

    totals: dict[int, ExactSum] = field(default_factory=dict)
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def gathered(self) -> "Tally":
        """Return what all ranks know together; every rank must call it."""
        if not (dist.is_available() and dist.is_initialized()):
            return self
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, self)
        numbers = sorted({number for part in parts for number in part.totals})
        everything = Tally({n: merged(part.totals[n] for part in parts if n in part.totals) for n in numbers})
        for part in parts:
            everything.rows |= part.rows
            everything.problems |= part.problems
        return everything


class Scorer:
    """Scores the samples of one data set by its rules.

    Args:
        task: knows its metrics.
        dataset: the data set.
        choice: what is measured beside them; by default all protocols that need no prediction in metres.
        has_spread: whether predictions come with their spread, whose calibration is measured, too.
    """

    def __init__(
        self, task: Task, dataset: DatasetInfo, choice: MetricChoice | None = None, has_spread: bool = False
    ) -> None:
        self.task, self.dataset, self.choice, self.has_spread = task, dataset, choice or MetricChoice(), has_spread

    def score(self, tally: Tally, prediction: Tensor, sample: GeometryBatch, spread: Tensor | None = None) -> bool:
        """Add a sample to a tally, and return whether there was anything to score.

        Args:
            tally: what the sample is added to.
            prediction: (1,C,h,w) float; resized to the size of the ground truth.
            sample: one image with its ground truth.
            spread: (1,1,h,w) float, that of the prediction, if there is one.
        """
        prediction = prediction.float()
        metrics = self._metrics(prediction.device)
        resized: dict[tuple[int, int], Tensor] = {}
        for metric in (each for each in metrics if each.concerns(sample)):
            target = self.task.target_of(metric, sample)
            size = metric.size_of(target)
            if size not in resized:
                resized[size] = resize_prediction(prediction, size)
            if isinstance(metric, Calibration):
                assert spread is not None
                metric.update(resized[size], *target, resize_prediction(spread.float(), size))
            else:
                metric.add(resized[size], target, sample)
        key = sample.key[0]
        if int(metrics[0].num_images) == 0:
            tally.problems[key] = NOTHING_VALID
            return False
        for index, metric in enumerate(metrics):
            tally.totals.setdefault(index, ExactSum()).add(metric)
        tally.rows[key] = _values(metrics)
        return True

    def overall(self, tally: Tally) -> dict[str, float]:
        """Return the metrics of the whole data set; NaN without any sample."""
        return _values(self._filled(tally))

    def calibration(self, tally: Tally) -> dict[str, Any] | None:
        """Return curves and table of the whole data set, for files; None without spreads or without any truth."""
        last = self._filled(tally)[-1]
        return last.describe() if isinstance(last, Calibration) and int(last.num_images) > 0 else None

    def _filled(self, tally: Tally) -> list[Any]:
        metrics = self._metrics(torch.device("cpu"))
        return [tally.totals.get(index, ExactSum()).fill(metric) for index, metric in enumerate(metrics)]

    @property
    def headline(self) -> str:
        """The metric that sums up the data set; less is better."""
        return self._metrics(torch.device("cpu"))[0].headline

    def _metrics(self, device: torch.device) -> list[GeometryMetric]:
        """Return metrics of one rank alone: they must not wait for others, which have other samples."""
        metrics = self.choice.make(self.task, self.dataset)
        if self.has_spread:
            metrics.append(Calibration(self.task.modality))
        return [metric.stay_alone().to(device) for metric in metrics]


def _values(metrics: Sequence[Any]) -> dict[str, float]:
    """Return the scalars of the first metric, and of those others that found something to score."""
    found = [metric for index, metric in enumerate(metrics) if index == 0 or int(metric.num_images) > 0]
    return {name: float(value) for name, value in all_scores(found).items()}
