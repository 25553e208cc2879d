"""The comparison of recipes: verdicts, a table of what is there, and a run that goes on."""

import pytest

from research.recipes_in_miniature.__main__ import main
from research.recipes_in_miniature.claims import CLAIMS, Claim
from research.recipes_in_miniature.recipes import RECIPES
from research.recipes_in_miniature.table import COLUMNS, as_markdown
from research.recipes_in_miniature.training import QUICK, Comparison

pytestmark = pytest.mark.filterwarnings("ignore")

CLAIM = Claim("a beats b", "a", "b", "error")


def of(*errors):
    return [{"error": error} for error in errors]


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        (of(0.1, 0.12), of(0.2, 0.21), "reproduced (0.1100 against 0.2050, -46.3 %)"),
        (of(0.3, 0.31), of(0.2, 0.21), "not reproduced"),
        (of(0.1, 0.3), of(0.2, 0.21), "open, the seeds overlap"),
        (of(0.1), of(0.2), "open, one seed"),
        ([], of(0.2), "not run"),
    ],
)
def test_a_claim_counts_only_where_all_seeds_agree(better, worse, verdict):
    assert CLAIM.verdict({"a": better, "b": worse}).startswith(verdict)


def test_claims_name_recipes_and_columns_that_there_are():
    names = {recipe.name for recipe in RECIPES}
    assert len(names) == len(RECIPES)
    for claim in CLAIMS:
        assert {claim.better, claim.worse} <= names and claim.metric in COLUMNS


def test_a_table_of_nothing_says_so(tmp_path):
    text = as_markdown(QUICK, Comparison(QUICK, tmp_path).found())
    assert text.count("| 0 |") == len(RECIPES) and text.count("not run") == len(CLAIMS)


@pytest.mark.slow
def test_the_quick_comparison_makes_every_cell_and_is_not_made_twice(tmp_path, capsys):
    main(["--quick", f"--work={tmp_path}"])
    text = (tmp_path / "quick/results.md").read_text()
    assert text.count("| 1 |") == len(RECIPES) and "not run" not in text
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "quick/stages").glob("*.json")}
    main(["--quick", f"--work={tmp_path}"])
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "quick/stages").glob("*.json")}
    assert (tmp_path / "quick/results.md").read_text() == text
