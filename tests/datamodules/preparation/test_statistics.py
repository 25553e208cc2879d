import json

import numpy as np
import pytest

from datamodules.preparation.statistics import SplitStatistics


def count(depth):
    statistics = SplitStatistics(samples=1)
    valid = depth[depth > 0]
    statistics.add_depth(depth, *((float(valid.min()), float(valid.max())) if valid.size else (None, None)))
    return statistics


@pytest.fixture
def depths():
    rng = np.random.default_rng(0)
    depths = rng.lognormal(1, 1, (3, 40, 50)).astype(np.float16)
    depths[1, :10], depths[2] = 0, 0
    return depths


def test_quantiles_of_a_whole_data_set_are_within_half_a_percent(depths):
    total = SplitStatistics()
    for depth in depths:
        total.add(count(depth))
    valid = depths[depths > 0].astype(np.float64)
    for share in (0.02, 0.5, 0.98):
        assert total.depth_quantile_m(share) == pytest.approx(np.quantile(valid, share), rel=5e-3)
    assert total.mean_valid_share == valid.size / depths.size
    assert (total.depth_min_m, total.depth_max_m) == (valid.min(), valid.max())


def test_parts_add_up_to_the_same_in_any_order_and_through_json(depths):
    forward, backward = SplitStatistics(), SplitStatistics()
    for depth in depths:
        forward.add(SplitStatistics.from_json(json.loads(json.dumps(count(depth).to_json()))))
    for depth in depths[::-1]:
        backward.add(count(depth))
    assert forward == backward and forward.summary() == backward.summary()


def test_a_split_without_any_depth_has_no_quantiles():
    assert count(np.zeros((4, 5), np.float16)).summary()["depth_quantiles_m"] == {
        "0.02": None,
        "0.5": None,
        "0.98": None,
    }
