"""Intervals that are as wide as they should be, and no wider for images that are hard for both runs."""

import numpy as np
import pytest

from lightning_modules.comparison.bootstrap import paired_difference


def test_the_interval_of_many_gaussian_differences_is_that_of_their_mean():
    generator = np.random.default_rng(0)
    first = generator.normal(size=2000)
    second = first + generator.normal(0.3, 1.0, 2000)
    found = paired_difference(first, second, 4000)
    half_width = 1.96 * (second - first).std() / np.sqrt(2000)
    assert found.mean == pytest.approx((second - first).mean())
    assert (found.high - found.low) / 2 == pytest.approx(half_width, rel=0.05)
    assert found.low < found.mean < found.high and found.is_clear


def test_images_that_are_hard_for_both_runs_do_not_widen_the_interval():
    generator = np.random.default_rng(1)
    difficulty, noise = 10 * generator.random(100), 0.01 * generator.normal(size=100)
    found = paired_difference(difficulty, difficulty + 0.02 + noise)
    assert found.is_clear and found.high - found.low < 0.01


def test_equal_runs_differ_by_nothing_and_the_draws_are_the_same_every_time():
    values = np.random.default_rng(2).random(50)
    same = paired_difference(values, values)
    assert (same.mean, same.low, same.high, same.is_clear) == (0, 0, 0, False)
    assert paired_difference(values, values[::-1]) == paired_difference(values, values[::-1])


@pytest.mark.parametrize(("first", "second", "count"), [([], [], 0), ([1.0], [2.0], 1), ([1, np.nan], [2, 3], 1)])
def test_no_interval_is_claimed_from_fewer_than_two_images(first, second, count):
    found = paired_difference(first, second)
    assert found.num_images == count and np.isnan(found.low) and not found.is_clear
