"""Every protocol of depth: against a transcription, against figures of its source's own code, and at perfection."""

import math

import cv2
import numpy as np
import pytest
import torch

from geometry.alignment.ransac import _draw_pair, fit_ransac
from geometry.errors import InputError
from geometry.parameterization import Parameterization, ParameterizationName
from lightning_modules.metrics.benchmarks.aligned_depth import ProtocolDepth
from lightning_modules.metrics.benchmarks.protocols import check_protocols, protocol_named
from tests.depth_metrics import depth_metrics, fit_scale_and_shift
from tests.helpers.benchmark_archives import SAMPLES, needs_samples

PPD = Parameterization("log", eps_m=1.0)
SPACES = ("linear", "log", "sqrt", "disparity", "sqrt_disparity")


def random_pair(seed, size=(60, 80)):
    """Depth, a prediction of ln(depth + 1) of which a third is noise, and a mask, all (H,W)."""
    generator = np.random.default_rng(seed)
    depth = (1 + 9 * generator.random(size) ** 2).astype("f4")
    prediction = (0.3 * np.log1p(depth) - 0.4 + 0.05 * generator.normal(size=size)).astype("f4")
    wild = generator.random(size) < 0.3
    prediction[wild] = generator.normal(size=wild.sum())
    return depth, prediction, generator.random(size) < 0.8


def scores(protocol, depth, prediction, mask, space=None, **options):
    metric = ProtocolDepth(protocol, space, **options)
    metric.update(*(torch.from_numpy(np.ascontiguousarray(values))[None, None] for values in (prediction, depth, mask)))
    return {name.removeprefix(f"{protocol}/"): float(value) for name, value in metric.compute().items()}


# AbsRel and delta1 of ppd/utils/align_depth_func.py and depth_estimation_model.py of gangweix/pixel-perfect-depth, run
# with scikit-learn 1.9.1 on these very predictions, its draws being those of _draw_pair; the second pair of figures is
# of the predictions times -1, where their scale is not positive and the means decide.
THEIR_FIGURES = {
    0: ((0.64926684, 0.5119047619), (1.2244577, 0.1042960663)),
    1: ((0.6959597, 0.4921956296), (1.2973953, 0.0972944849)),
    2: ((0.6365137, 0.5125161290), (1.1944466, 0.1158709677)),
}


@pytest.mark.parametrize("seed", THEIR_FIGURES)
@pytest.mark.parametrize("sign", [1, -1])
def test_ransac_in_log_space_gives_the_figures_of_the_source_s_own_code(seed, sign):
    depth, prediction, mask = random_pair(seed)
    found = scores("ransac_log", depth, sign * prediction, mask, PPD)
    abs_rel, delta1 = THEIR_FIGURES[seed][sign < 0]
    assert found["abs_rel"] == pytest.approx(abs_rel, rel=1e-6)
    assert found["delta1"] == pytest.approx(delta1, abs=1e-9)


def ransac_by_hand(x, y, seed=0, trials=1000):
    """RANSAC with the defaults of scikit-learn, in NumPy; returns scale, shift."""
    limit = np.median(np.abs(y - np.median(y)))
    generator = torch.Generator().manual_seed(seed)
    best, most, highest, number = None, 1, -math.inf, 0
    while number < trials:
        number += 1
        pair = list(_draw_pair(len(x), generator))
        scale, shift = np.polyfit(x[pair], y[pair], 1)
        near = np.abs(scale * x + shift - y) <= limit
        if near.sum() < most:
            continue
        left = y[near] - (scale * x[near] + shift)
        score = 1 - (left**2).sum() / ((y[near] - y[near].mean()) ** 2).sum()
        if near.sum() == most and score < highest:
            continue
        best, most, highest = near, near.sum(), score
        spoiled = max(2**-52, 1 - (most / len(x)) ** 2)
        trials = min(trials, math.ceil(math.log(0.01) / math.log(spoiled)) if spoiled < 1 else math.inf)
    return fit_scale_and_shift(x[best], y[best])


def by_hand(depth, prediction, mask):
    x, y = prediction[mask].astype(np.float64), np.log1p(depth[mask].astype(np.float64))
    scale, shift = ransac_by_hand(x, y)
    aligned = np.expm1(scale * x + shift if scale > 0 else x * y.mean() / x.mean())
    known = depth[mask].astype(np.float64)
    aligned = np.clip(aligned, 1e-3, known.max())
    ratio = np.maximum(known / (aligned + 1e-5), aligned / (known + 1e-5))
    return {"abs_rel": np.mean(np.abs(aligned - known) / (known + 1e-5)), "delta1": np.mean(ratio < 1.25)}


@needs_samples
@pytest.mark.parametrize("name", ["nyu", "kitti"])
def test_ransac_in_log_space_follows_the_rules_on_real_depth(name):
    for file in sorted((SAMPLES / name / "depth").iterdir()):
        depth = cv2.imread(str(file), -1)[::3, ::3].astype("f4") / (1000 if name == "nyu" else 256)
        generator = np.random.default_rng(3)
        prediction = (0.2 * np.log1p(depth) + 0.1 * generator.normal(size=depth.shape)).astype("f4")
        wild = generator.random(depth.shape) < 0.2
        prediction[wild] = 1 - prediction[wild]
        mask = (depth > 0.1) & (depth < 80)
        expected = by_hand(depth, prediction, mask)
        found = scores("ransac_log", depth, prediction, mask, PPD)
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3, 9))
def test_ransac_in_log_space_follows_the_rules_on_random_depth(seed):
    pair = random_pair(seed)
    expected = by_hand(*pair)
    found = scores("ransac_log", *pair, PPD)
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-9)


def test_of_trials_with_equally_many_inliers_the_better_line_wins():
    for seed in range(40):
        generator = np.random.default_rng(seed)
        x = generator.normal(size=7)
        y = 2 * x + generator.normal(size=7)
        fit = fit_ransac(torch.from_numpy(x), torch.from_numpy(y))
        assert (float(fit.scale), float(fit.shift)) == pytest.approx(tuple(ransac_by_hand(x, y)), rel=1e-9)


@pytest.mark.parametrize("protocol", ["least_squares", "least_squares_disparity", "ransac_log"])
@pytest.mark.parametrize("name", SPACES)
def test_a_perfect_prediction_scores_zero_in_every_space(protocol, name):
    depth, _, mask = random_pair(0)
    space = Parameterization(name)
    values = space.apply(torch.from_numpy(depth).double()).numpy()
    found = scores(protocol, depth, 0.3 * values - 0.7, mask, space)
    assert found["abs_rel"] < 1e-5  # 1e-6 of it is what log and disparity add to depth, and undo again
    assert found["delta1"] == 1


@pytest.mark.parametrize("name", SPACES)
def test_the_robust_protocol_stands_outliers_better(name):
    depth, _, mask = random_pair(1)
    space = Parameterization(name)
    values = space.apply(torch.from_numpy(depth).double()).numpy()
    spoiled = np.random.default_rng(0).random(depth.shape) < 0.2
    prediction = np.where(spoiled, values.mean() + 4 * values.std(), values)
    robust, plain = (scores(protocol, depth, prediction, mask, space) for protocol in ("ransac_log", "least_squares"))
    assert robust["delta1"] > plain["delta1"] + 0.1


def test_least_squares_is_that_of_the_transcription_with_a_range():
    depth, prediction, mask = random_pair(2)
    found = scores("least_squares", depth, prediction, mask, limits=(1.5, 8.0))
    expected = depth_metrics(prediction[mask].astype(float), depth[mask].astype(float), 1.5, 8.0)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-9)


def test_least_squares_in_disparity_is_that_of_the_transcription():
    depth, _, mask = random_pair(3)
    prediction = (0.4 / depth + 0.1 + 0.02 * np.random.default_rng(0).normal(size=depth.shape)).astype("f4")
    known, guess = depth[mask].astype(float), prediction[mask].astype(float)
    scale, shift = fit_scale_and_shift(guess, 1 / known)
    aligned = 1 / np.maximum(scale * guess + shift, 1 / known.max())
    found = scores("least_squares_disparity", depth, prediction, mask, Parameterization("disparity", 0.0))
    assert found["abs_rel"] == pytest.approx(np.mean(np.abs(aligned - known) / known), rel=1e-9)
    # Depth that is no disparity is brought to metres first.
    linear = scores("least_squares_disparity", depth, depth + 0.1 * prediction, mask)
    assert 0 < linear["abs_rel"] < 0.05


def test_median_scaling_and_metric_depth_change_nothing_else():
    depth, _, mask = random_pair(4)
    prediction = depth * np.random.default_rng(1).uniform(0.8, 1.2, depth.shape).astype("f4")
    known, guess = depth[mask].astype(float), prediction[mask].astype(float)
    for protocol, factor in (("metric", 1.0), ("median", np.median(known) / np.median(guess))):
        aligned = factor * guess
        found = scores(protocol, depth, prediction, mask)
        assert found["abs_rel"] == pytest.approx(np.mean(np.abs(aligned - known) / known), rel=1e-9)
    assert scores("metric", depth, 3 * depth, mask)["abs_rel"] == pytest.approx(2, rel=1e-6)
    assert scores("median", depth, 3 * depth, mask)["abs_rel"] < 1e-6
    assert scores("metric", depth, 0 * depth, mask, limits=(0.5, 9))["abs_rel"] == pytest.approx(
        np.mean(np.abs(0.5 - known) / known)
    )


def test_the_robust_fit_depends_on_nothing_but_its_values():
    depth, prediction, mask = random_pair(5)
    first = scores("ransac_log", depth, prediction, mask, PPD)
    torch.manual_seed(9), torch.rand(100)
    assert scores("ransac_log", depth, prediction, mask, PPD) == first
    together = ProtocolDepth("ransac_log", PPD)
    pairs = [random_pair(seed) for seed in (6, 5)]
    together.update(*(torch.from_numpy(np.stack([p[i] for p in pairs]))[:, None] for i in (1, 0, 2)))
    alone = scores("ransac_log", *random_pair(6), PPD)
    assert float(together.compute()["ransac_log/abs_rel"]) == pytest.approx((first["abs_rel"] + alone["abs_rel"]) / 2)


@pytest.mark.parametrize("protocol", ["least_squares", "least_squares_disparity", "ransac_log", "median", "metric"])
def test_predictions_that_are_not_finite_or_constant_are_scored_as_such(protocol):
    depth, prediction, mask = random_pair(0)
    prediction[mask.nonzero()[0][0], mask.nonzero()[1][0]] = np.nan
    assert math.isnan(scores(protocol, depth, prediction, mask)["abs_rel"])
    constant = scores(protocol, depth, np.full_like(depth, 3.0), mask)["abs_rel"]
    assert 0.05 < constant < 10
    empty = ProtocolDepth(protocol)
    empty.update(*(torch.zeros(1, 1, 4, 4),) * 2, torch.zeros(1, 1, 4, 4) > 0)
    assert all(math.isnan(value) for value in empty.compute().values()) and int(empty.num_images) == 0


def test_ransac_finds_the_line_that_most_points_lie_on():
    x = torch.tensor([0.0, 1, 2, 3, 4, 5, 6])
    y = torch.tensor([1.0, 3, 5, 70, 9, -4, 13])
    fit = fit_ransac(x, y, threshold=0.1)
    assert (float(fit.scale), float(fit.shift)) == pytest.approx((2, 1))
    assert fit.inliers.tolist() == [True, True, True, False, True, False, True]
    assert fit_ransac(x[:1], y[:1]) is None


def test_unknown_protocols_and_spaces_are_named():
    with pytest.raises(InputError, match="no protocol 'ransac'; choose from least_squares, "):
        protocol_named("ransac")
    with pytest.raises(InputError, match="twice"):
        check_protocols(["metric", "metric"])
    with pytest.raises(InputError, match="choose one of linear, log"):
        Parameterization("cubic")
    assert SPACES == ParameterizationName.__args__
