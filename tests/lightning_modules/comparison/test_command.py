"""``python train.py compare`` on two tests of saved predictions, from archives to tables and visualisations."""

import csv
import json
import os
import shutil

import cv2
import numpy as np
import pytest

import train
from datamodules import Benchmarks
from tests.evaluations import results_in, run
from tests.helpers.benchmark_archives import write_depth_archive


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """Two runs on the same six images: the second is better, most of all on the third image."""
    root = tmp_path_factory.mktemp("compare")
    write_depth_archive(root / "data", "scannet", num_samples=6)
    data = Benchmarks(str(root / "data"), num_workers=0)
    data.setup("test")
    generator = np.random.default_rng(0)
    for batch in data.test_dataloader()[0]:
        depth, noise = batch.targets["depth"].values[0].numpy(), generator.normal(size=(1, 48, 64))
        third = batch.key[0].endswith("3")
        for name, amount in (("first", 2.0 if third else 0.7), ("second", 0.5)):
            path = root / name / "scannet" / f"{batch.key[0]}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, (0.1 * (depth + amount * noise)).astype("f4"))
    for name in ("first", "second"):
        run(
            "--model=lightning_modules.SavedPredictions",
            f"--model.folder={root / name}",
            "--model.task=lightning_modules.Depth",
            "--data=datamodules.Benchmarks",
            f"--data.root={root / 'data'}",
            "--data.num_workers=0",
            "--trainer.accelerator=cpu",
            f"--evaluation.output={root / f'runs_{name}/test'}",
            "--evaluation.save_predictions=true",
            "--evaluation.num_images=0",
        )
    return root


def compare(*words):
    train.main(["compare", *map(str, words)])


def error_of(capsys, *words):
    with pytest.raises(SystemExit):
        compare(*words)
    return capsys.readouterr().err.strip().splitlines()[-1]


def edit_results(folder, change):
    document = json.loads((folder / "results.json").read_text())
    change(document["data_sets"]["scannet"])
    (folder / "results.json").write_text(json.dumps(document))


def test_a_comparison_that_one_would_paste(tested, tmp_path, capsys):
    first, second = (tested / f"runs_{name}" for name in ("first", "second"))
    compare(first, second, "--output", tmp_path / "out", "--num-images", 2)
    out = capsys.readouterr().out
    with (tmp_path / "out/compare.csv").open() as file:
        rows = {row["metric"]: row for row in csv.DictReader(file)}
    scores = [results_in(each / "test")["data_sets"]["scannet"]["scores"] for each in (first, second)]
    assert {"abs_rel", "ransac_log/abs_rel", "ransac_log/delta1"} == set(rows)
    for metric, row in rows.items():
        assert float(row["difference"]) == pytest.approx(scores[1][metric] - scores[0][metric])
        assert float(row["low"]) < float(row["difference"]) < float(row["high"]) and row["images"] == "6"
    text = (tmp_path / "out/compare.md").read_text()
    assert text.count("| better |") == 3 and "| worse |" not in text, "a larger delta1 is better, a larger error worse"
    assert "model.init_args.folder" in text and "model.init_args.folder" in out
    assert r"\toprule" in (tmp_path / "out/compare.tex").read_text()
    shown = [line for line in text.splitlines() if line.startswith("![")]
    assert len(shown) == 2 and "000003" in shown[0]
    painted = cv2.imread(str(tmp_path / "out/scannet_run2_1.jpg"))
    one = cv2.imread(str(next((first / "test/predictions/scannet").glob("*.jpg"))))
    assert painted.shape[1] == one.shape[1] and painted.shape[0] > 2 * one.shape[0]


def test_what_only_one_run_scored_is_left_out_and_said(tested, tmp_path, capsys):
    shutil.copytree(tested / "runs_second/test", tmp_path / "partial")
    samples = tmp_path / "partial/scannet/samples.csv"
    samples.write_text("".join(samples.read_text().splitlines(keepends=True)[:-2]))
    edit_results(tmp_path / "partial", lambda scores: scores.update(num_images=4))
    compare(tested / "runs_first", tmp_path / "partial", "--output", tmp_path / "out", "--metrics", "rmse")
    out = capsys.readouterr().out
    assert f"scannet, rmse: 2 images of {tested / 'runs_first'} have no partner" in out


def test_other_samples_or_rules_are_said(tested, tmp_path, capsys):
    shutil.copytree(tested / "runs_second/test", tmp_path / "other")
    edit_results(tmp_path / "other", lambda scores: scores.update(identity="model-otherdata"))
    compare(tested / "runs_first", tmp_path / "other", "--output", tmp_path / "out")
    assert "were tested on other files, samples or sizes" in capsys.readouterr().out


class TestMistakes:
    def test_a_run_without_results(self, tested, tmp_path, capsys):
        assert "holds no results.json" in error_of(capsys, tested / "runs_first", tmp_path)

    def test_a_run_with_several_tests(self, tested, tmp_path, capsys):
        for name in ("test", "test_2"):
            shutil.copytree(tested / "runs_second/test", tmp_path / name)
        assert "several tests; name the one" in error_of(capsys, tested / "runs_first", tmp_path)

    def test_results_that_are_damaged(self, tested, tmp_path, capsys):
        (tmp_path / "results.json").write_text('{"data_sets": 1}')
        assert "cannot be read" in error_of(capsys, tested / "runs_first", tmp_path)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"name": "../scannet"}, "no usable name"),
            ({"name": "scan\x1b[2Jnet"}, "no usable name"),
            ({"scores": {"abs_rel\n": 1.0}}, "no usable name"),
            ({"scores": {"abs_rel": "many"}}, "cannot be read"),
            ({"num_images": 7}, "has 6 of 7 images"),
        ],
    )
    def test_results_of_somebody_else_that_lead_elsewhere_or_nowhere(self, tested, tmp_path, capsys, change, told):
        shutil.copytree(tested / "runs_second/test", tmp_path / "other")
        edit_results(tmp_path / "other", lambda scores: scores.update(change))
        assert told in error_of(capsys, tested / "runs_first", tmp_path / "other")

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"data_sets": {}, "x": "\\ud800"}', "\x00"])
    def test_results_that_no_parser_takes(self, tested, tmp_path, capsys, text):
        (tmp_path / "results.json").write_text(text)
        assert "cannot be read" in error_of(capsys, tested / "runs_first", tmp_path)

    @pytest.mark.parametrize("name", ["~nobody-here/x", "x" * 300])
    def test_what_can_be_no_folder(self, tested, capsys, name):
        assert "the run " in error_of(capsys, tested / "runs_first", name)

    @pytest.mark.parametrize("name", ["results.json", "scannet/samples.csv"])
    def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(self, tested, tmp_path, capsys, name):
        shutil.copytree(tested / "runs_second/test", tmp_path / "other")
        (tmp_path / "other" / name).unlink()
        os.mkfifo(tmp_path / "other" / name)
        assert (
            "no regular file" in error_of(capsys, tested / "runs_first", tmp_path / "other") or name == "results.json"
        )

    def test_samples_that_are_cut_off(self, tested, tmp_path, capsys):
        shutil.copytree(tested / "runs_second/test", tmp_path / "other")
        samples = tmp_path / "other/scannet/samples.csv"
        samples.write_text(samples.read_text()[:-30])
        assert "line 7 of samples.csv is cut off" in error_of(capsys, tested / "runs_first", tmp_path / "other")

    def test_the_same_results_by_two_names(self, tested, capsys):
        words = (tested / "runs_first", tested / "runs_first/test")
        assert "are the same results" in error_of(capsys, *words)

    def test_one_run_alone_and_an_unknown_metric(self, tested, capsys):
        assert "needs two runs" in error_of(capsys, tested / "runs_first")
        words = (tested / "runs_first", tested / "runs_second", "--metrics", "sharpness")
        assert "no run has 'sharpness'" in error_of(capsys, *words)
