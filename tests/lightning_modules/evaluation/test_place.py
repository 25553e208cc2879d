from lightning_modules.evaluation.place import free_folder
from lightning_modules.evaluation.scores import DatasetScores, write_scores


def write(folder, name, identity):
    write_scores(folder / name, DatasetScores(name, identity, {"abs_rel": 0.1}, 1, None, {}), {})


def test_results_of_another_model_or_of_other_data_are_never_written_over(tmp_path):
    wanted = tmp_path / "test"
    assert free_folder(wanted, {"nyuv2": "model-data"}) == wanted
    write(wanted, "nyuv2", "model-data")
    assert free_folder(wanted, {"nyuv2": "model-data"}) == wanted, "the same test goes on where it was"
    assert free_folder(wanted, {"kitti": "model-other"}) == wanted, "another benchmark of the same model joins it"
    assert free_folder(wanted, {"nyuv2": "other-data"}).name == "test_2"
    assert free_folder(wanted, {"kitti": "other-data"}).name == "test_2"
    assert free_folder(wanted, {"nyuv2": "model-fewer"}).name == "test_2"
    write(tmp_path / "test_2", "nyuv2", "other-data")
    assert free_folder(wanted, {"nyuv2": "third-data"}).name == "test_3"
    assert free_folder(wanted, {"nyuv2": "other-data"}).name == "test_2"
