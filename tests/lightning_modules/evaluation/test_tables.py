import math

from lightning_modules.evaluation.scores import DatasetScores
from lightning_modules.evaluation.tables import comparison_tables, latex_tables, metric_rows, screen_table
from lightning_modules.metrics.benchmarks.choice import protocol_of
from lightning_modules.metrics.benchmarks.published import PUBLISHED


def results():
    scores = {"abs_rel": 0.05, "delta1": 0.97, "ransac_log/abs_rel": 0.04, "ransac_log/delta1": math.nan}
    return [
        DatasetScores("nyuv2", "a-b", scores, 654, 654, {}),
        DatasetScores("own_data", "a-c", {"abs_rel": 0.2, "delta1": 0.5}, 3, None, {}),
    ]


def test_figures_stand_only_beside_those_of_their_own_protocol_and_name_their_source():
    tables = {table.title: table.rows for table in comparison_tables("abs_rel", results())}
    least_squares, robust = tables["AbsRel (%), least squares in depth"], tables["AbsRel (%), RANSAC in log depth"]
    assert next(iter(tables)) == "AbsRel (%), least squares in depth", "the headline stands first"
    assert least_squares[1] == ["this evaluation", "", "5.00", "20.00"] and robust[1][2:] == ["4.00"]
    of_fe2e = [next(row for row in rows if row[0] == "FE2E (2026)") for rows in (least_squares, robust)]
    assert [row[2] for row in of_fe2e] == ["4.1", "3.8"]
    assert not any("Marigold V2" in row[0] for row in least_squares), "it was never scored by least squares"
    assert all(row[1] for rows in tables.values() for row in rows[2:]), "a source beside every figure"


def test_every_published_figure_says_how_it_was_made():
    for table in PUBLISHED:
        assert table.protocol and table.rows
        assert "least squares" not in table.protocol or "/" not in table.metric
        assert all(row.source and row.figures for row in table.rows)


def test_metrics_are_listed_protocol_by_protocol():
    groups = metric_rows("abs_rel", results())
    assert [title for title, _ in groups] == ["least squares in depth", "RANSAC in log depth"]
    assert groups[0][1][1] == ["abs_rel", "0.0500", "0.2000"]
    assert groups[1][1] == [
        ["metric", "nyuv2"],
        ["ransac_log/abs_rel", "0.0400"],
        ["ransac_log/delta1", "-"],
        ["images", "654"],
    ]
    assert "RANSAC in log depth\nmetric" in screen_table("abs_rel", results())
    assert (protocol_of("mean_angle_deg"), protocol_of("saee3_deg")) == ("", "")


def test_latex_is_what_a_paper_takes_in():
    text = latex_tables("abs_rel", results())
    assert r"\begin{tabular}{lrr}" in text and r"\toprule" in text and text.count(r"\begin{table}") == 3
    assert r"AbsRel (\%)" in text and r"own\_data" in text
    assert "this evaluation & 5.00 & 20.00 \\\\" in text
    assert "Published figures: Martin Garcia et al." in text


def test_a_metric_without_published_figures_has_a_table_of_its_own():
    other = [DatasetScores("own_data", "a-c", {"abs_error": 0.25}, 3, None, {})]
    (table,) = comparison_tables("abs_error", other)
    assert table.rows == [["method", "source", "own_data"], ["this evaluation", "", "0.2500"]]
