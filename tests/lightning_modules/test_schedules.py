import math
from itertools import pairwise

import pytest

from lightning_modules.schedules import warmup_exponential


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.01),
        (1, 0.02),
        (99, 1.0),
        (100, 1.0),
        (101, math.exp(math.log(0.01) * 1 / 19_900)),
        (10_000, 0.01 ** (9_900 / 19_900)),
        (20_000, 0.01),
        (30_000, 0.01),
    ],
)
def test_learning_rate_follows_the_recipe_of_the_paper(step, expected):
    assert warmup_exponential(step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("warmup_steps", [0, 1, 7, 50])
def test_no_update_is_wasted_on_a_learning_rate_of_zero(warmup_steps):
    factors = [warmup_exponential(step, warmup_steps, total_steps=20) for step in range(60)]
    assert min(factors) > 0
    assert max(factors) == 1.0


def test_the_decay_never_rises_again():
    factors = [warmup_exponential(step, 10, 100) for step in range(10, 200)]
    assert all(later <= earlier for earlier, later in pairwise(factors))
