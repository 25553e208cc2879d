"""Tables that one would paste: short names, and no column that says the same in every row."""

from lightning_modules.comparison.bootstrap import paired_difference
from lightning_modules.comparison.tables import Comparison, comparison_rows, short_names


def compared(*runs):
    difference = paired_difference([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], 200, seed=0)
    return [Comparison("nyuv2", "abs_rel", run, (0.2, 0.3), difference) for run in runs]


def test_names_are_what_tells_runs_apart():
    assert short_names(["runs/a/test", "runs/b/test"]) == {"runs/a/test": "a", "runs/b/test": "b"}
    assert list(short_names(["a/test", "a/test_2"]).values()) == ["test", "test_2"]
    assert list(short_names(["/x/a/1/test", "/x/b/2/test"]).values()) == ["a/1", "b/2"]
    assert list(short_names(["a", "b/c"]).values()) == ["a", "b/c"]


def test_two_runs_have_a_column_each_and_more_a_column_of_names():
    heading, row = comparison_rows(compared("runs/b/test"), "runs/a/test")
    assert heading[:5] == ["dataset", "metric", "a", "b", "difference"] and row[2:5] == ["0.2000", "0.3000", "+0.1000"]
    heading, second, third = comparison_rows(compared("runs/b/test", "runs/c/test"), "runs/a/test")
    assert heading[:6] == ["dataset", "metric", "run", "a", "score", "difference"]
    assert (second[2], third[2]) == ("b", "c") and len(second) == len(third) == len(heading)
