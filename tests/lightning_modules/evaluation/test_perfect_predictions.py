"""What a perfect network decodes scores 0, in every parameterisation and frame, by every protocol and metric."""

from typing import get_args

import pytest
import torch

from geometry.batch import DatasetInfo, GeometryBatch, Target
from geometry.modalities.normals import Frame
from geometry.parameterization import ParameterizationName
from lightning_modules import Depth, Normals
from lightning_modules.evaluation.scoring import Scorer, Tally
from lightning_modules.metrics.benchmarks.choice import MetricChoice
from lightning_modules.metrics.benchmarks.protocols import protocol_titles
from lightning_modules.metrics.depth_scores import DEPTH_METRICS
from lightning_modules.tasks import Task

# These protocols fit less than a scale and a shift, so that the prediction has to know the rest.
FIT_LESS = ("median", "metric")
PERFECT = {"delta1": 1.0, "delta2": 1.0, "delta3": 1.0}  # of all others, 0 is the best
SEES_PREDICTION = [name for name in DEPTH_METRICS if name != "abs_rel_constant"]


def scene(size=(24, 32)):
    """One image of slanted surfaces at 1 to 40 m with steps between them, a tenth of it unknown, and normals."""
    generator = torch.Generator().manual_seed(0)
    slanted = torch.linspace(1, 12, size[1]).expand(size) + torch.linspace(0, 3, size[0])[:, None]
    depth = torch.where(torch.arange(size[1]) % 8 < 4, slanted, 2.5 * slanted)[None, None]
    mask = torch.rand(depth.shape, generator=generator) > 0.1
    normals = torch.nn.functional.normalize(torch.randn(1, 3, *size, generator=generator), dim=1)
    return GeometryBatch(
        image=torch.zeros(1, 3, *size),
        targets={"depth": Target(depth * mask, mask), "normals": Target(normals * mask, mask)},
        dataset=DatasetInfo("perfect", {"depth": (0.1, 100.0)}),
        key=["one"],
    )


def scores_of(task: Task, prediction, batch, protocols=("least_squares",)):
    scorer, tally = Scorer(task, batch.dataset, MetricChoice(protocols, ("soft_edges",))), Tally()
    assert scorer.score(tally, prediction, batch)
    return scorer.overall(tally)


@pytest.mark.parametrize("protocol", protocol_titles())
@pytest.mark.parametrize("name", get_args(ParameterizationName))
def test_a_perfect_depth_scores_zero_in_every_parameterization_by_every_protocol(name, protocol):
    batch, task = scene(), Depth(parameterization=name, low_quantile=0, high_quantile=1)
    if protocol in FIT_LESS:
        prediction = task.modality.as_predicted(batch.targets["depth"]).values
    else:
        prediction = task.predict(task.target_image(batch)[0])
    found = scores_of(task, prediction, batch, (protocol,))
    before = "" if protocol == "least_squares" else f"{protocol}/"
    expected = {f"{before}{score}": PERFECT.get(score, 0.0) for score in SEES_PREDICTION}
    assert {score: found[score] for score in expected} == pytest.approx(expected, abs=1e-3)
    assert found[f"{before}abs_rel"] < 3e-5
    edges = [value for score, value in found.items() if "/see" in score]
    assert len(edges) == 4 and max(edges) < 1e-3
    assert found["abs_rel_constant"] > 0.3, "a scene that any prediction fits"


@pytest.mark.parametrize("frame", get_args(Frame))
def test_perfect_normals_score_zero_in_every_frame(frame):
    batch, task = scene(), Normals(frame=frame)
    found = scores_of(task, task.predict(task.target_image(batch)[0]), batch)
    errors = [value for score, value in found.items() if score.endswith("deg") and "under" not in score]
    errors = [value for value in errors if value != found["mean_angle_constant_deg"]]
    assert len(errors) >= 3 and max(errors) < 1e-3
    assert {value for score, value in found.items() if "under" in score} == {1.0}
    assert found["mean_angle_constant_deg"] > 30, "a scene that any prediction fits"
