import json
import math

import torch

from geometry.batch import DatasetInfo
from lightning_modules import Depth
from lightning_modules.evaluation.report import write_results
from lightning_modules.evaluation.scores import DatasetScores, read_scores, write_scores
from lightning_modules.evaluation.scoring import Scorer, Tally
from tests.helpers.tiny import make_batch


def test_a_data_set_without_a_single_scored_image_has_no_score_rather_than_zero(tmp_path):
    scores = Scorer(Depth(), DatasetInfo("tiny")).overall(Tally())
    result = DatasetScores("empty", "a-b", scores, 0, 5, {"first": "unreadable", "": "the archive is cut off"})
    write_scores(tmp_path, result, {})
    write_results(tmp_path, {"checkpoint": None}, "abs_rel", [result], {"kitti": "not found"})

    text = (tmp_path / "results.json").read_text()
    assert json.loads(text)["data_sets"]["empty"]["scores"]["abs_rel"] is None
    assert json.loads(text)["missing"] == {"kitti": "not found"}
    again = read_scores(tmp_path)
    assert math.isnan(again.scores["abs_rel"]) and again.problems == result.problems
    assert result.remarks() == "published on 5 images; 1 left out, the first first: unreadable; the archive is cut off"
    assert (tmp_path / "samples.csv").read_text().splitlines()[1].startswith("first,,")
    assert "* kitti: not found" in (tmp_path / "results.md").read_text()


def test_what_is_no_file_of_scores_does_not_count_as_finished(tmp_path):
    assert read_scores(tmp_path) is None
    for content in ("", "[]", '{"name": "x"}', '{"scores": 3}', '{"scores": {}, "strange": 1}'):
        (tmp_path / "scores.json").write_text(content)
        assert read_scores(tmp_path) is None


def test_predictions_that_are_not_finite_are_said_to_be_so_and_not_left_out():
    tally, batch, scorer = Tally(), make_batch(1), Scorer(Depth(), DatasetInfo("tiny"))
    scorer.score(tally, torch.full_like(batch.targets["depth"].values, math.nan), batch)
    result = DatasetScores("tiny", "a-b", scorer.overall(tally), len(tally.rows), None, tally.problems)
    assert math.isnan(result.scores["abs_rel"]) and result.num_images == 1
    assert "not finite" in result.remarks() and "samples.csv" in result.remarks()
