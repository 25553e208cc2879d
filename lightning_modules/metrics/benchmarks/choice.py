"""Which metrics a test takes: those of the task, those of the protocols, and those that a benchmark or a user adds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from geometry.batch import DatasetInfo
from geometry.errors import InputError
from geometry.modalities import Depth
from geometry.parameterization import Parameterization
from lightning_modules.metrics.base import GeometryMetric
from lightning_modules.metrics.benchmarks.aligned_depth import ProtocolDepth
from lightning_modules.metrics.benchmarks.boundaries import BoundaryF1, BoundaryRecall
from lightning_modules.metrics.benchmarks.ibims import DepthBoundaryError, PlanarityError
from lightning_modules.metrics.benchmarks.ordinal import OrdinalAccuracy
from lightning_modules.metrics.benchmarks.protocols import check_protocols, protocol_titles
from lightning_modules.metrics.benchmarks.soft_edges import SoftAngularEdgeError, SoftEdgeError
from lightning_modules.metrics.depth_scores import DEPTH_METRICS
from lightning_modules.tasks import Task

LEAST_SQUARES = "least_squares"
DEFAULT_PROTOCOLS = (LEAST_SQUARES, "ransac_log")

# By modality and name: what makes the metric of a protocol and a space.
_MADE: dict[tuple[str, str], Callable[[str, Parameterization], GeometryMetric]] = {
    ("depth", "soft_edges"): SoftEdgeError,
    ("depth", "boundary_f1"): BoundaryF1,
    ("depth", "boundary_error"): DepthBoundaryError,
    ("depth", "planarity"): PlanarityError,
    ("depth", "boundary_recall"): lambda protocol, space: BoundaryRecall(space),
    ("depth", "ordinal"): lambda protocol, space: OrdinalAccuracy(space),
    ("normals", "soft_edges"): lambda protocol, space: SoftAngularEdgeError(),
}


@dataclass(frozen=True)
class MetricChoice:
    """What a test measures beside the metrics of its task.

    Attributes:
        protocols: names of the protocols by which depth is brought to metres; the first one is that of further metrics
            that depend on one. ``least_squares`` is what the task's own metric does.
        metrics: names of further metrics, for all datasets.
    """

    protocols: Sequence[str] = DEFAULT_PROTOCOLS
    metrics: Sequence[str] = ()

    def check(self, modality: str) -> None:
        """Check all names.

        Args:
            modality: name of the modality that is predicted.

        Raises:
            InputError: one is unknown, or for another modality.
        """
        check_protocols(self.protocols)
        for name in self.metrics:
            if (modality, name) not in _MADE:
                choice = ", ".join(known for of, known in _MADE if of == modality) or "none"
                raise InputError(
                    f"evaluation.metrics: there is no metric {name!r} for {modality}; choose from {choice}."
                )

    def make(self, task: Task, dataset: DatasetInfo) -> list[GeometryMetric]:
        """Return new metrics by the rules of a dataset, the one that sums up first.

        Args:
            task: what is predicted.
            dataset: the dataset, which may have metrics of its own in place of the task's.
        """
        modality = task.modality.name
        space = task.modality.parameterization if isinstance(task.modality, Depth) else Parameterization()
        names = [*dataset.metrics, *(name for name in self.metrics if name not in dataset.metrics)]
        first = self.protocols[0] if self.protocols else LEAST_SQUARES
        made = [_MADE[modality, name](first, space) for name in names if (modality, name) in _MADE]
        extra = [metric.for_dataset(dataset) for metric in made]
        if dataset.has_own_metrics and extra:
            return extra
        others = [name for name in self.protocols if name != LEAST_SQUARES] if modality == "depth" else []
        by_protocol = [ProtocolDepth(name, space).for_dataset(dataset) for name in others]
        return [*task.make_metrics(dataset), *by_protocol, *extra]


def protocol_of(metric: str) -> str:
    """Return the protocol that a metric belongs to; empty for one that needs none.

    Args:
        metric: its name in scores.
    """
    before, slash, _ = metric.partition("/")
    if slash:
        return before
    return LEAST_SQUARES if metric in DEPTH_METRICS else ""


def protocol_title(metric: str) -> str:
    """Return the title of a metric's protocol; empty for one that needs none.

    Args:
        metric: its name in scores.
    """
    return protocol_titles().get(protocol_of(metric), "")
