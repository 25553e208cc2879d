"""Sums of metrics that do not depend on the order of samples or on the number of ranks, to the last bit."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import fsum

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.lightning_internals import mark_as_updated


@dataclass
class ExactSum:
    """The sum of the states of metrics of single samples.

    Floating-point states are kept sample by sample and summed at the end with exact rounding; integer states are
    added at once.

    Attributes:
        floats: by state, the flattened values of every sample.
        integers: by state, the sum.
    """

    floats: dict[str, list[list[float]]] = field(default_factory=dict)
    integers: dict[str, Tensor] = field(default_factory=dict)

    def add(self, metric: Metric) -> None:
        """Add the metric of one sample.

        Args:
            metric: a metric whose states are sums.
        """
        for name, state in metric.metric_state.items():
            value = torch.as_tensor(state).detach().cpu()
            if value.is_floating_point():
                self.floats.setdefault(name, []).append(value.double().flatten().tolist())
            else:
                self.integers[name] = self.integers[name] + value if name in self.integers else value.clone()

    def fill(self, metric: Metric) -> Metric:
        """Return a new metric with its states set to the sums.

        Args:
            metric: a metric of the same kind to which nothing was added.
        """
        for name, state in metric.metric_state.items():
            start = torch.as_tensor(state)
            if name in self.floats:
                sums = [fsum(column) for column in zip(*self.floats[name], strict=True)]
                setattr(metric, name, torch.tensor(sums, dtype=torch.float64).reshape(start.shape))
            elif name in self.integers:
                setattr(metric, name, self.integers[name])
        mark_as_updated(metric)
        return metric


def merged(parts: Iterable[ExactSum]) -> ExactSum:
    """Return the sum over ranks.

    Args:
        parts: the sums of the ranks.
    """
    total = ExactSum()
    for part in parts:
        for name, rows in part.floats.items():
            total.floats.setdefault(name, []).extend(rows)
        for name, value in part.integers.items():
            total.integers[name] = total.integers[name] + value if name in total.integers else value.clone()
    return total
