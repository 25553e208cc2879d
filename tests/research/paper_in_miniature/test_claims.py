"""Verdicts and tables from known numbers: a claim counts only beyond the seed spread."""

import pytest

from research.paper_in_miniature.claims import as_good, at_least, better
from research.paper_in_miniature.report import rows_table
from research.paper_in_miniature.tables import Measured, markdown, measured


def three(mean, spread):
    return Measured(mean, spread, 3)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (three(0.20, 0.01), three(0.30, 0.01), "reproduced"),
        (three(0.30, 0.01), three(0.20, 0.01), "not reproduced"),
        (three(0.20, 0.03), three(0.24, 0.04), "within the seed spread"),  # 0.04 apart, spread 0.05
        (three(0.24, 0.03), three(0.20, 0.04), "within the seed spread"),
        (Measured(0.20, 0.0, 1), three(0.24, 0.02), "reproduced"),  # one seed takes the other's spread: 0.028
        (Measured(0.20, 0.0, 1), three(0.24, 0.03), "within the seed spread"),  # 0.042
        (Measured(0.20, 0.0, 1), Measured(0.90, 0.0, 1), "undecided: one seed"),
    ],
)
def test_a_difference_counts_only_if_it_exceeds_the_seed_spread(first, second, verdict):
    assert better("", first, second, ".2f").verdict == verdict


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (three(0.20, 0.01), three(0.30, 0.01), "reproduced"),
        (three(0.24, 0.03), three(0.20, 0.04), "reproduced"),
        (three(0.26, 0.03), three(0.20, 0.04), "not reproduced"),
        (Measured(0.2, 0.0, 1), Measured(0.3, 0.0, 1), "undecided: one seed"),
    ],
)
def test_as_good_means_not_worse_by_more_than_the_spread(first, second, verdict):
    assert as_good("", first, second, ".2f").verdict == verdict


def test_a_speed_up_counts_from_what_was_claimed_on():
    assert at_least("", 200.0, 200).verdict == "reproduced"
    assert at_least("", 199.9, 200).verdict == "not reproduced"


def test_the_spread_is_the_standard_deviation_over_seeds():
    found = measured([{"abs_rel": value} for value in (0.1, 0.2, 0.3)], "abs_rel")
    assert (found.mean, found.spread) == pytest.approx((0.2, 0.1))
    assert f"{found:.3f}" == "0.200 ± 0.100"
    assert f"{measured([{'abs_rel': 0.1}], 'abs_rel'):.3f}" == "0.100 (one seed)"


def test_tables_show_every_seeded_metric_and_the_best_constant():
    scores = [{"abs_rel": 0.1 * seed, "delta1": 0.9, "abs_rel_constant": 0.4, "rmse": 7.0} for seed in (1, 2, 3)]
    table = rows_table([{"key": "slow", "text": "slow", "evaluations": 500, "scores": scores}], "depth")
    assert table == markdown(
        ["depth", "UNet evaluations", "AbsRel", "delta1"],
        [["slow", "500", "0.2000 ± 0.1000", "0.900 ± 0.000"], ["best constant", "", "0.4000", ""]],
    )
