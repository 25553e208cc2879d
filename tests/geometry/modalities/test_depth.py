import math

import pytest
import torch

from geometry.batch import Target
from geometry.modalities import Depth


def known(values):
    values = torch.as_tensor(values, dtype=torch.float32).reshape(1, 1, 1, -1)
    return Target(values, torch.ones_like(values, dtype=torch.bool))


def test_depth_is_known_between_the_planes_that_may_count_themselves_and_where_positive():
    stored = torch.tensor([0.0, -2.0, 0.99, 1.0, 40.0, 80.0, 80.5, math.nan]).reshape(1, 1, 1, -1)
    values, mask = Depth().restore(stored.clone(), (1.0, 80.0))
    assert values.flatten().tolist() == [0, 0, 0, 1, 40, 80, 0, 0]
    assert mask.flatten().tolist() == [False] * 3 + [True] * 3 + [False] * 2
    _, anywhere = Depth().restore(stored.clone(), (-math.inf, math.inf))
    assert anywhere.flatten().tolist() == [False, False, True, True, True, True, True, False]


def test_the_image_runs_from_the_outer_quantiles_in_three_equal_channels():
    target = known(range(1, 102))  # the quantiles are 3 and 99 metres
    image = Depth().to_image(target)
    assert image[0, 0, 0, [0, 2, 50, 98, 100]].tolist() == pytest.approx([-1, -1, 0, 1, 1], abs=1e-6)
    assert torch.equal(image[:, 0], image[:, 1]) and torch.equal(image[:, 0], image[:, 2])


def test_a_prediction_is_the_mean_of_the_channels_clamped():
    decoded = torch.tensor([[-0.5, 0.3, 3.0], [0.1, 0.4, 3.0], [0.1, 0.5, 3.0]]).reshape(1, 3, 1, 3)
    assert Depth().from_image(decoded).flatten().tolist() == pytest.approx([-0.1, 0.4, 1.0])


def test_mirroring_turns_no_value_around():
    values = torch.tensor([1.0, 2.0])
    Depth().mirror_(values)
    assert values.tolist() == [1, 2]


def test_alignment_undoes_scale_and_shift_also_upside_down_and_errors_are_relative():
    target = known([2.0, 4.0, 8.0])
    for prediction in (0.1 * target.values - 0.7, -3 * target.values):
        aligned = Depth().align(prediction, target)
        assert aligned.flatten().tolist() == pytest.approx([2, 4, 8], rel=1e-5)
    assert Depth().error(torch.tensor([3.0, 4.0, 4.0]).reshape(1, 1, 1, 3), target).flatten().tolist() == [0.5, 0, 0.5]


def test_colours_of_a_prediction_keep_to_the_limits_of_the_truth():
    target = known([1.0, 2.0, 3.0])
    limits = Depth().color_limits(target)
    assert limits.tolist() == [[pytest.approx(1.04), pytest.approx(2.96)]]
    shown = Depth().colorize(target.values + 100, limits=limits)
    assert torch.equal(shown[..., 0], shown[..., 2])  # all are beyond the far end
    assert not torch.equal(shown[..., 0], Depth().colorize(target.values, limits=limits)[..., 0])
    nothing = Target(target.values, torch.zeros_like(target.mask))
    assert Depth().color_limits(nothing).tolist() == [[0, 1]]


def test_published_depth_is_0_at_the_nearest_and_1_at_the_farthest():
    assert Depth().publish(torch.tensor([-1.0, 0.0, 1.0])).tolist() == [0, 0.5, 1]
