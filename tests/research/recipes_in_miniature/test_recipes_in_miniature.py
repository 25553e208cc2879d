"""The comparison of recipes: verdicts, a table of what is there, and a run that goes on."""

import pytest

from research.recipes_in_miniature.__main__ import main
from research.recipes_in_miniature.bases import BASES
from research.recipes_in_miniature.claims import CLAIMS, Claim, claims_of
from research.recipes_in_miniature.recipes import RECIPES, recipes_of
from research.recipes_in_miniature.table import COLUMNS, as_markdown
from research.recipes_in_miniature.training import Comparison, settings_of

pytestmark = pytest.mark.filterwarnings("ignore")

CLAIM = Claim("a beats b", "a", "b", "error")


def of(*errors):
    return [{"error": error} for error in errors]


@pytest.mark.parametrize(
    ("better", "worse", "verdict"),
    [
        (of(0.1, 0.12), of(0.2, 0.21), "reproduced (0.1100 against 0.2050, -46.3 %)"),
        (of(0.3, 0.31), of(0.2, 0.21), "not reproduced"),
        (of(0.1, 0.3), of(0.2, 0.21), "within noise"),
        (of(0.1), of(0.2), "one seed"),
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


@pytest.mark.parametrize("base", BASES)
def test_a_table_of_nothing_says_so(base, tmp_path):
    settings, recipes = settings_of(base, quick=True), recipes_of(base)
    text = as_markdown(settings, Comparison(settings, tmp_path).found())
    claims = claims_of({recipe.name for recipe in recipes})
    assert text.count("| 0 |") == len(recipes) > 4 and text.count("not run") == len(claims) > 4


def test_a_further_seed_is_added_to_those_that_are_there(tmp_path, monkeypatch):
    settings = settings_of("transformer", quick=True)
    monkeypatch.setattr(Comparison, "_train", lambda self, recipe, seed: seed)
    monkeypatch.setattr(Comparison, "_evaluate", lambda self, seed: {"abs_rel": 1.0 + seed})
    for seeds in ("0", "2", "1"):
        main(["--quick", "--base=transformer", f"--work={tmp_path}", "--recipes", "log", "--seeds", seeds])
    found = Comparison(settings, tmp_path / "quick").found()
    assert [each["abs_rel"] for each in found["log"]] == [1, 2, 3] and found["linear"] == []
    assert "| 3 | 2.0000 ± 1.0000 |" in (tmp_path / "quick/results_transformer.md").read_text()


def test_a_recipe_that_is_not_compared_on_the_base_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--quick", f"--work={tmp_path}", "--recipes", "residual"])
    assert "--recipes residual is none of --base unet; choose from linear," in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
def test_the_quick_comparison_makes_every_cell_and_is_not_made_twice(base, tmp_path, capsys):
    command = ["--quick", f"--base={base}", f"--work={tmp_path}"]
    main(command)
    table = tmp_path / f"quick/results_{base}.md"
    text = table.read_text()
    assert text.count("| 1 |") == len(recipes_of(base)) and "not run" not in text
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "quick/stages").glob("*.json")}
    main(command)
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "quick/stages").glob("*.json")}
    assert table.read_text() == text
