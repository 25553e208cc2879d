"""``test`` with uncertainty: curves and tables, the refusals, and two ranks beside one."""

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import Benchmarks
from lightning_modules.evaluation.callback import Evaluation
from lightning_modules.inference.loading import build_estimator
from tests.evaluations import files_in, options_for, results_in, run, trainer_on
from tests.helpers.benchmark_archives import (
    ibims_mat,
    random_image,
    write_depth_archive,
    write_further,
    write_normals,
    write_zip,
)
from tests.helpers.tiny import build_base
from tests.lightning_modules.metrics.benchmarks.edge_scenes import plane_scene

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def model_of(base, task="Depth", noise="zeros"):
    network = {"class_path": "lightning_modules.StableDiffusion", "init_args": {"base": str(base), "noise": noise}}
    task = {"class_path": f"lightning_modules.{task}"}
    return {"class_path": "lightning_modules.SingleStepEstimator", "init_args": {"network": network, "task": task}}


def options_of(base, tmp_path):
    return [*options_for(base, tmp_path), "--evaluation.num_images=0"]


def test_a_test_reports_where_its_predictions_are_unsure(base, tmp_path):
    write_depth_archive(tmp_path / "data", "nyuv2", num_samples=2)
    write_further(tmp_path / "data", "da_2k", np.random.default_rng(0))
    options = options_of(base, tmp_path)
    run(*options, "--evaluation.uncertainty=views", "--data.benchmarks=[nyuv2, da_2k]", "--data.longest_side_px=32")
    results = results_in(tmp_path / "out")["data_sets"]
    found = results["nyuv2"]
    assert 0 < found["scores"]["ause_chance"] < 1 and found["scores"]["error_over_spread"] > 0
    calibration = found["calibration"]
    assert len(calibration["error_left"]) == len(calibration["removed_share"]) == 20
    assert calibration["error_left"][0] == 1
    assert sum(row["pixel_share"] for row in calibration["bins"]) == pytest.approx(1)
    assert results["da_2k"]["calibration"] is None, "pairs of points are no depth to compare a spread with"
    assert "ause" not in results["da_2k"]["scores"]
    assert cv2.imread(str(tmp_path / "out/nyuv2/calibration.png")).shape == (420, 840, 3)
    events = EventAccumulator(str(tmp_path / "out")).Reload()
    assert events.Tags()["images"] == ["test/nyuv2/calibration"]
    assert "ause_chance" in (tmp_path / "out/results.md").read_text()


def test_the_scores_are_the_same_with_and_without_uncertainty(base, tmp_path):
    write_depth_archive(tmp_path / "data", "nyuv2", num_samples=2)
    scores = []
    for words in ([], ["--evaluation.uncertainty=flip"]):
        run(*options_of(base, tmp_path), *words)
        scores.append(results_in(tmp_path / "out")["data_sets"]["nyuv2"]["scores"])
    assert scores[0].items() < scores[1].items()


def test_what_cannot_have_an_uncertainty_is_refused_in_one_line(base, tmp_path, capsys):
    write_depth_archive(tmp_path / "data", "nyuv2", num_samples=1)
    options = options_of(base, tmp_path)
    saved = ["--model=lightning_modules.SavedPredictions", f"--model.folder={tmp_path}", *options[3:]]
    for message, words in (
        ("this one gives every member the same prediction", [*options, "--evaluation.uncertainty=ensemble"]),
        ("SavedPredictions cannot", [*saved, "--evaluation.uncertainty=flip"]),
        ("2 to 1000 members, got 1", [*options, "--evaluation.uncertainty=flip", "--evaluation.ensemble_members=1"]),
    ):
        with pytest.raises(SystemExit) as ended:
            run(*words)
        error = capsys.readouterr().err
        assert ended.value.code == 2 and message in error and "Traceback" not in error


@pytest.mark.parametrize("task", [pytest.param("Depth", marks=pytest.mark.slow), "Normals"])
def test_two_ranks_give_the_numbers_of_one_for_every_protocol_edge_and_uncertainty(base, tmp_path, task):
    modality = task.lower()
    if task == "Depth":
        depth, _, _, planes, _, calib = plane_scene(0)
        edges = np.zeros(depth.shape, np.uint8)
        edges[30] = 1
        image = random_image(np.random.default_rng(1), depth.shape)
        content = ibims_mat(depth.numpy().astype(float), image, planes, calib, edges)
        write_zip(tmp_path / "ibims1_core_mat.zip", {f"ibims1_core_mat/corridor_0{n}.mat": content for n in (1, 2)})
        write_further(tmp_path, "hypersim_edges", np.random.default_rng(0))
        metrics = ["soft_edges", "boundary_f1", "boundary_error", "planarity"]
    else:
        write_normals(tmp_path, "nyuv2", num_samples=3)
        metrics = ["soft_edges"]
    by = "ensemble" if task == "Depth" else "flip"
    documents = []
    for ranks in (1, 2):
        protocols = ["least_squares", "ransac_log", "least_squares_disparity", "median", "metric"]
        evaluation = Evaluation(
            str(tmp_path / f"ranks{ranks}"), protocols, metrics, num_images=1, uncertainty=by, ensemble_members=2
        )
        trainer = trainer_on(ranks, evaluation)
        data = Benchmarks(str(tmp_path), modalities=[modality], num_workers=0)
        trainer.test(build_estimator(model_of(base, task, "gaussian")), data, verbose=False)
        documents.append(files_in(tmp_path / f"ranks{ranks}"))
    assert documents[0].keys() == documents[1].keys() and "calibration.png" in documents[0]
    assert [name for name in documents[0] if documents[0][name] != documents[1][name]] == []
    if task == "Depth":
        measured = results_in(tmp_path / "ranks1")["data_sets"]["ibims"]["scores"]
        edges = {f"least_squares/{name}" for name in ("dbe_acc", "pe_angle_deg", "boundary_f1")}
        known = {"ransac_log/abs_rel", "median/abs_rel", "metric/abs_rel", "least_squares_disparity/abs_rel", "ause"}
        known |= edges
        assert known <= measured.keys()
