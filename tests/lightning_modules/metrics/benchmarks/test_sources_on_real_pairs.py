"""Every protocol on real depth: the figures of its source's own code, run on the same predictions.

``their_figures.json`` holds what these programs returned for ``real_pairs``:

* least_squares, least_squares_disparity, metric: ``align_depth_least_square`` and the metrics of prs-eth/Marigold
  (b1dffaa), in the order and with the clipping of its script/depth/eval.py;
* ransac_log: ``recover_metric_depth_ransac`` and ``compute_depth_metric`` of gangweix/pixel-perfect-depth (427a86f) on
  ln(prediction + 1), with scikit-learn 1.9.1, whose draws were those of ``_draw_pair``;
* median: the scaling and ``compute_errors`` of nianticlabs/monodepth2 (77f1410);
* boundary_f1: ``SI_boundary_F1`` of apple/ml-depth-pro (9efe5c1), where depth is dense.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from geometry.parameterization import Parameterization
from lightning_modules.metrics import AffineInvariantDepth
from lightning_modules.metrics.benchmarks.aligned_depth import ProtocolDepth
from lightning_modules.metrics.benchmarks.boundaries import BoundaryF1
from tests.helpers.benchmark_archives import needs_samples
from tests.lightning_modules.metrics.benchmarks.real_pairs import real_pairs

THEIRS = json.loads((Path(__file__).parent / "their_figures.json").read_text())


def ours(metric, *images):
    metric.update(*(torch.from_numpy(np.ascontiguousarray(image))[None, None] for image in images))
    return {name.rpartition("/")[2]: float(value) for name, value in metric.compute().items()}


def our_figures(protocol, depth, prediction, mask, limits):
    if protocol == "least_squares":
        return ours(AffineInvariantDepth(*limits), prediction, depth, mask)
    if protocol == "least_squares_disparity":
        space = Parameterization("disparity", eps_m=0.0)
        return ours(ProtocolDepth(protocol, space, limits), 1 / prediction, depth, mask)
    if protocol == "ransac_log":
        single = np.log1p(prediction).astype(np.float32), depth.astype(np.float32)
        return ours(ProtocolDepth(protocol, Parameterization("log", eps_m=1.0)), *single, mask)
    if protocol == "boundary_f1":
        dense = np.where(mask, depth, np.median(depth[mask]))
        return ours(BoundaryF1("metric"), prediction, dense, np.ones_like(mask))
    return ours(ProtocolDepth(protocol, Parameterization(), limits), prediction, depth, mask)


@needs_samples
@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("protocol", ["least_squares", "least_squares_disparity", "ransac_log", "median", "metric"])
def test_the_figures_of_a_protocol_are_those_of_its_source_s_own_code(name, protocol):
    pair = next(values for key, *values in real_pairs() if key == name)
    found, theirs = our_figures(protocol, *pair), THEIRS[name][protocol]
    assert {key: found[key] for key in theirs} == pytest.approx(theirs, rel=1e-6, abs=1e-9)


@needs_samples
@pytest.mark.parametrize("name", [name for name in THEIRS if THEIRS[name]["boundary_f1"]])
def test_the_boundary_f1_is_that_of_its_source_s_own_code(name):
    pair = next(values for key, *values in real_pairs() if key == name)
    found, theirs = our_figures("boundary_f1", *pair), THEIRS[name]["boundary_f1"]
    assert found["boundary_f1"] == pytest.approx(theirs["boundary_f1"], rel=1e-9)
