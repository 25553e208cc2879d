"""``python train.py test`` from archives to tables, on a tiny random base and on saved predictions."""

import csv
import multiprocessing
import re
import shutil
import signal
from itertools import chain

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules import Benchmarks, DatasetSource, GeometryDataModule
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.virtual_kitti import VirtualKitti
from lightning_modules import Depth, Normals, SavedPredictions
from lightning_modules.evaluation.callback import Evaluation
from lightning_modules.evaluation.files import save_array
from synthetic_scenes import SyntheticHypersim, SyntheticVirtualKitti
from tests.evaluations import files_in, options_for, results_in, run, trainer_on
from tests.helpers.benchmark_archives import (
    DEPTH_ARCHIVES,
    depth_members,
    png,
    write_depth_archive,
    write_further,
    write_normals,
    write_tar,
)
from tests.helpers.tiny import build_base

pytestmark = pytest.mark.filterwarnings("ignore")


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    return error[error.index("error: ") :].strip()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def options(base, tmp_path):
    return options_for(base, tmp_path)


def write_troubled_archives(root):
    """NYUv2 with three good samples and three that cannot be scored; ScanNet cut off in its last file."""
    generator = np.random.default_rng(0)
    members = {}
    for number in range(1, 7):
        members |= depth_members("nyuv2", number, generator)
    del members["test/kitchen_0004/depth_0004.png"]
    members["test/kitchen_0004/depth_0005.png"] = png(np.zeros((64, 80), "u2"))
    members["test/kitchen_0004/depth_0006.png"] = members["test/kitchen_0004/depth_0006.png"][:100]
    write_tar(root / DEPTH_ARCHIVES["nyuv2"], members)
    write_depth_archive(root, "scannet")
    archive = root / DEPTH_ARCHIVES["scannet"]
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size * 3 // 4])


def test_a_test_from_archives_to_tables_images_and_back(options, tmp_path, capsys):
    write_troubled_archives(tmp_path / "data")
    run(*options, "--evaluation.save_predictions=true", "--evaluation.num_images=1")
    out = tmp_path / "out"
    results = results_in(out)
    nyu, scannet = (results["data_sets"][name] for name in ("nyuv2", "scannet"))

    # What cannot be scored is named and counted, and never averaged in.
    assert {"kitti", "eth3d", "diode", "ibims", "da_2k"} < set(results["missing"])
    assert not {"nyuv2", "scannet"} & set(results["missing"])
    assert nyu["num_images"] == 3 and nyu["num_images_published"] == 654
    problems = {key[-4:]: reason for key, reason in nyu["problems"].items()}
    assert set(problems) == {"0004", "0005", "0006"}
    assert "no ground truth" in problems["0004"] and "depth_0004.png" in problems["0004"]
    assert problems["0005"] == "no pixel that counts"
    assert "unreadable" in problems["0006"]
    assert "cut off" in scannet["problems"][""]
    assert scannet["num_images"] == 2
    assert all(0 < data_set["scores"]["abs_rel"] < 10 for data_set in (nyu, scannet))

    with (out / "nyuv2/samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = [float(row["abs_rel"]) for row in rows if not row["left_out"]]
    assert len(rows) == 6 and np.mean(values) == pytest.approx(nyu["scores"]["abs_rel"], rel=1e-12)
    worst = max((row for row in rows if not row["left_out"]), key=lambda row: float(row["abs_rel"]))
    assert [path.stem for path in (out / "nyuv2").glob("worst_*.jpg")] == [f"worst_1_{worst['key']}"]
    assert len(list((out / "nyuv2").glob("median_*.jpg"))) == 1

    markdown = (out / "results.md").read_text()
    assert "## AbsRel (%), least squares in depth" in markdown and "## AbsRel (%), RANSAC in log depth" in markdown
    assert f"| this evaluation |  | {100 * nyu['scores']['abs_rel']:.2f} |" in markdown
    assert f"| this evaluation |  | {100 * nyu['scores']['ransac_log/abs_rel']:.2f} |" in markdown
    assert re.search(r"\| Marigold \+ E2E \(2024\) \| Martin Garcia [^|]*\| 5.2 \| 5.8 \|", markdown)
    assert re.search(r"\| Marigold V2 \(2026\) \| Pavlovic [^|]*\| 3.6 \| 3.7 \|", markdown)
    assert results["metric_protocols"]["abs_rel"] == "least_squares"
    assert results["metric_protocols"]["ransac_log/abs_rel"] == "ransac_log"
    assert results["protocols"]["ransac_log"] == "RANSAC in log depth"
    assert results["precision"] == "32-true" and results["step"] is None and results["commit"] and results["command"]
    table = list(csv.DictReader((out / "results.csv").open()))
    rows = {(row["dataset"], row["protocol"], row["metric"]): float(row["value"]) for row in table}
    assert rows["scannet", "ransac_log", "abs_rel"] == scannet["scores"]["ransac_log/abs_rel"]
    assert r"\toprule" in (out / "results.tex").read_text()
    assert "published on 654 images; 3 left out" in markdown
    scalars = EventAccumulator(str(out)).Reload()
    assert scalars.Scalars("test/nyuv2/abs_rel")[0].value == pytest.approx(nyu["scores"]["abs_rel"], rel=1e-6)
    screen = capsys.readouterr()
    assert f"nyuv2: abs_rel {nyu['scores']['abs_rel']:.4f} on 3 images" in screen.out
    assert "4/6" in screen.err, "a bar per data set"

    # A finished data set is not run again, not even without its archive; another model is.
    shutil.copy(out / "nyuv2/scores.json", tmp_path / "before.json")
    run(*options)
    assert "already scored" in capsys.readouterr().out
    assert (out / "nyuv2/scores.json").read_bytes() == (tmp_path / "before.json").read_bytes()
    run(*options, "--model.network.noise=gaussian", "--data.benchmarks=[nyuv2]")
    other = results_in(out)["data_sets"]
    assert set(other) == {"nyuv2"} and other["nyuv2"]["scores"] != nyu["scores"]

    assert len(list((out / "nyuv2").glob("*.jpg"))) == 6, "images of the model before must not stay"

    # Benchmarks that are scored one at a time end up in one table.
    run(*options, "--data.benchmarks=[nyuv2]", "--evaluation.restart=true")
    assert results_in(out)["data_sets"] == results["data_sets"]

    # The predictions give the same scores without the model.
    saved = ["--model=lightning_modules.SavedPredictions", f"--model.folder={tmp_path / 'saved'}", *options[3:-1]]
    shutil.copytree(out / "predictions", tmp_path / "saved")
    run(*saved, f"--evaluation.output={tmp_path / 'again'}")
    again = results_in(tmp_path / "again")["data_sets"]
    assert again["nyuv2"]["scores"] == nyu["scores"]
    assert again["scannet"]["scores"] == scannet["scores"]


def test_normals_are_evaluated_when_that_is_the_task(options, tmp_path):
    for name in ("nyuv2", "scannet"):
        write_normals(tmp_path / "data", name)
    run(*options, "--model.task=lightning_modules.Normals", "--evaluation.num_images=0")
    results = results_in(tmp_path / "out")
    assert set(results["missing"]) == {"ibims", "sintel"}
    assert all(0 < result["scores"]["mean_angle_deg"] < 180 for result in results["data_sets"].values())
    text = (tmp_path / "out/results.md").read_text()
    assert re.search(r"\| Marigold \+ E2E \(2024\) \| [^|]*\| 16.2 \| 14.7 \|", text)


def test_held_out_hypersim_and_virtual_kitti_are_scored_from_their_shards_by_the_same_rules(options, tmp_path):
    SyntheticHypersim(size=(48, 64), frames_per_scene=1).write(tmp_path / "raw", 6, progress=False)
    SyntheticVirtualKitti(size=(40, 144), conditions=("fog",)).write(tmp_path / "raw", 5, progress=False)
    raws = {
        "hypersim": Hypersim(tmp_path / "raw", (48, 64)),
        "virtual_kitti": VirtualKitti(tmp_path / "raw", (32, 128)),
    }
    for name, source in raws.items():
        prepare_dataset(source, tmp_path / name, ShardOptions(), progress=False)
    data = GeometryDataModule([DatasetSource(str(tmp_path / name)) for name in raws], batch_size=2, num_workers=0)
    data.setup("test")
    ranges = {dataset.name: dataset.range_of("depth") for dataset in data.test_dataset_infos}
    assert ranges == {"hypersim": (1e-5, 65.0), "virtual_kitti": (1e-5, 80.0)}
    for batch in chain(*data.test_dataloader()):
        for key, depth in zip(batch.key, batch.targets["depth"].values, strict=True):
            save_array(tmp_path / "saved" / batch.dataset.name / f"{key}.npy", (0.05 * depth - 1).numpy())

    config = tmp_path / "data.yaml"
    datasets = ", ".join(f"{{path: {tmp_path / name}}}" for name in raws)
    config.write_text(f"data: {{init_args: {{datasets: [{datasets}]}}}}\n")
    arguments = [option for option in options[4:] if not option.startswith("--data")]
    arguments += ["--data=datamodules.GeometryDataModule", "--data.num_workers=0", f"--config={config}"]
    saved = ["--model=lightning_modules.SavedPredictions", f"--model.folder={tmp_path / 'saved'}"]
    run(*saved, "--model.task=lightning_modules.Depth", *arguments)
    found = results_in(tmp_path / "out")["data_sets"]
    assert set(found) == set(raws)
    for scored in found.values():
        assert scored["num_images"] >= 1 and not scored["problems"]
        assert scored["scores"]["abs_rel"] < 1e-5 and scored["scores"]["delta1"] == 1

    run(*options[:4], *arguments)  # by a network
    assert all(scored["scores"]["abs_rel"] > 1e-3 for scored in results_in(tmp_path / "out")["data_sets"].values())


def test_an_evaluation_that_is_killed_goes_on_with_the_data_set_it_was_in(options, tmp_path, capsys):
    for name in ("nyuv2", "scannet", "diode"):
        write_depth_archive(tmp_path / "data", name)
    kill = ["--trainer.callbacks=tests.evaluations.KillIn"]
    kill += ["--trainer.callbacks.dataset=scannet", "--trainer.callbacks.sample=1"]
    process = multiprocessing.get_context("fork").Process(target=run, args=(*options, *kill))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL

    out = tmp_path / "out"
    assert set(results_in(out)["data_sets"]) == {"nyuv2"}
    assert not list((out / "scannet").glob("*")) and not (out / "diode").exists()
    finished = (out / "nyuv2/scores.json").stat().st_mtime_ns
    run(*options)
    assert "already scored" in capsys.readouterr().out
    assert (out / "nyuv2/scores.json").stat().st_mtime_ns == finished
    resumed = results_in(out)
    run(*options, "--evaluation.restart=true")
    assert resumed["data_sets"] == results_in(out)["data_sets"]
    assert set(resumed["data_sets"]) == {"nyuv2", "scannet", "diode"}


def test_an_archive_of_which_nothing_is_left_is_reported_with_no_score(options, tmp_path, capsys):
    write_depth_archive(tmp_path / "data", "scannet")
    archive = tmp_path / "data" / DEPTH_ARCHIVES["scannet"]
    archive.write_bytes(archive.read_bytes()[:700])
    run(*options)
    scannet = results_in(tmp_path / "out")["data_sets"]["scannet"]
    assert scannet["num_images"] == 0 and set(scannet["scores"].values()) == {None}
    assert "cut off or damaged after 0 files" in capsys.readouterr().out
    assert "| this evaluation |  | - |" in (tmp_path / "out/results.md").read_text()


def test_pairs_of_points_end_in_a_table_with_the_prediction_painted(options, tmp_path):
    write_further(tmp_path / "data", "da_2k", np.random.default_rng(0))
    run(*options, "--data.benchmarks=[da_2k]", "--data.longest_side_px=32", "--evaluation.num_images=1")
    found = results_in(tmp_path / "out")["data_sets"]["da_2k"]
    assert found["num_images"] == 1 and found["scores"].keys() == {"ordinal_error", "ordinal_accuracy"}
    painted = cv2.imread(str(tmp_path / "out/da_2k/worst_1_images__indoor__a.jpg"))
    assert painted.shape[1] < 3 * 320, "image and prediction, no truth and no error"


class TestMistakes:
    def test_a_benchmark_that_is_asked_for_and_missing_or_unknown(self, options, tmp_path, capsys):
        write_depth_archive(tmp_path / "data", "scannet", num_samples=1)
        error = error_of(capsys, *options, "--data.benchmarks=[scannet,kitti]")
        assert "kitti: not found in" in error and "kitti_eigen_split_test.tar" in error
        assert "there is no benchmark 'oasis' for depth" in error_of(capsys, *options, "--data.benchmarks=[oasis]")

    def test_the_data_of_another_task_or_none_at_all(self, options, tmp_path, capsys):
        write_depth_archive(tmp_path / "data", "scannet", num_samples=1)
        error = error_of(capsys, *options, "--model.task=lightning_modules.Normals")
        assert "holds no benchmark for normals" in error and "benchmarks for depth (scannet)" in error
        assert "is not a folder" in error_of(capsys, *options, f"--data.root={tmp_path / 'nowhere'}")

    def test_a_folder_for_the_results_that_cannot_be_written_to(self, options, tmp_path, capsys):
        (tmp_path / "file").write_text("")
        error = error_of(capsys, *options, f"--evaluation.output={tmp_path / 'file/out'}")
        assert "results cannot be written to" in error and "--evaluation.output" in error

    def test_a_saved_prediction_that_is_missing(self, options, tmp_path, capsys):
        write_depth_archive(tmp_path / "data", "scannet", num_samples=1)
        saved = ["--model=lightning_modules.SavedPredictions", f"--model.folder={tmp_path}", *options[3:]]
        assert "000001.npy is missing" in error_of(capsys, *saved)


@pytest.mark.parametrize("task", [Depth, Normals])
@pytest.mark.parametrize("num_samples", [{"nyuv2": 5, "scannet": 1}, {"nyuv2": 1}])
def test_two_ranks_give_the_numbers_of_one_exactly_even_if_one_has_nothing_to_do(tmp_path, task, num_samples):
    names = list(num_samples)
    for name, number in num_samples.items():
        (write_depth_archive if task is Depth else write_normals)(tmp_path, name, num_samples=number)
    data = Benchmarks(str(tmp_path), names, modalities=[task.modality_class.name], num_workers=0)
    data.setup("test")
    generator = np.random.default_rng(0)
    for loader in data.test_dataloader():
        for batch in loader:
            path = tmp_path / "saved" / batch.dataset.name / f"{batch.key[0]}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, generator.normal(size=(3 if task is Normals else 1, 24, 32)).astype("f4"))

    documents = []
    for ranks in (1, 2):
        evaluation = Evaluation(str(tmp_path / f"ranks{ranks}"), num_images=1)
        trainer = trainer_on(ranks, evaluation)
        data = Benchmarks(str(tmp_path), names, modalities=[task.modality_class.name], num_workers=0)
        trainer.test(SavedPredictions(str(tmp_path / "saved"), task()), data, verbose=False)
        documents.append(files_in(tmp_path / f"ranks{ranks}"))
    assert documents[0].keys() == documents[1].keys()
    assert documents[0] == documents[1]
