"""Several modalities from one network, each with losses and metrics of its own."""

from collections.abc import Sequence
from typing import NoReturn

from torch import Tensor, nn

from geometry.batch import DatasetInfo, GeometryBatch
from geometry.errors import InputError
from lightning_modules.losses.base import Loss
from lightning_modules.metrics.base import GeometryMetric
from lightning_modules.tasks import Task


class SeveralTasks(Task):
    """Several modalities from one network, whose ``switch`` has an output for each.

    A prediction holds the channels of all tasks, one task after the other. Every data set must have the truth of all.

    Args:
        tasks: The tasks, for instance Depth and Normals, of different modalities. The first one's headline sums up.
        only: Name of a modality: that task alone. Tests score one modality at a time.

    Raises:
        InputError: There is no task, two have the same modality, or none has the one that is chosen.
    """

    def __init__(self, tasks: list[Task], only: str | None = None) -> None:
        nn.Module.__init__(self)
        names = [task.modality.name for task in tasks]
        if not names or len(set(names)) < len(names):
            raise InputError(f"SeveralTasks needs tasks of different modalities, at least one, got {names}.")
        if only is not None and only not in names:
            raise InputError(f"SeveralTasks has no task for only: {only!r}; choose one of {', '.join(names)}.")
        chosen = [task for task in tasks if only in (None, task.modality.name)]
        self._members = nn.ModuleList(chosen)

    @property
    def members(self) -> list[Task]:
        """The tasks that share the network."""
        return list(self._members)  # type: ignore[arg-type]

    @property
    def modality(self) -> NoReturn:  # type: ignore[override]
        """There is not the one modality: what needs one says how to choose it."""
        names = ", ".join(member.modality.name for member in self.members)
        raise InputError(
            f"the model predicts {names}; here it must be one of them: --model.task.only in test, --modality "
            "in other commands, modality=... in Python."
        )

    def parts_of(self, prediction: Tensor) -> list[tuple[Task, Tensor]]:
        """Return each member with its channels of a prediction (B,C,H,W) of all."""
        sizes = [member.modality.num_channels for member in self.members]
        return list(zip(self.members, prediction.split(sizes, dim=1), strict=True))

    @property
    def headline_metric(self) -> str:
        """The scalar that sums up a validation; that of the first task."""
        return self.members[0].headline_metric

    @property
    def constant_metric(self) -> str:
        """What the best constant prediction scores as ``headline_metric``; empty if that is not known."""
        return self.members[0].constant_metric

    @property
    def losses(self) -> list[Loss]:
        """All losses of all tasks."""
        return [loss for member in self.members for loss in member.losses]

    def make_metrics(self, dataset: DatasetInfo) -> list[GeometryMetric]:
        """Return new metrics of all tasks by the rules of a data set.

        Args:
            dataset: the data set.
        """
        return [metric for member in self.members for metric in member.make_metrics(dataset)]

    def update_metrics(self, metrics: Sequence[GeometryMetric], prediction: Tensor, batch: GeometryBatch) -> None:
        """Add a validation batch to metrics made by ``make_metrics``.

        Args:
            metrics: the metrics.
            prediction: (B,C,H,W) float, of the targets' size, the channels of all tasks.
            batch: the images that were predicted.
        """
        rest = list(metrics)
        for member, part in self.parts_of(prediction):
            count = len(member.make_metrics(batch.dataset))
            member.update_metrics(rest[:count], part, batch)
            rest = rest[count:]
