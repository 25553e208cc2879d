"""python train.py predict --anchors: tables and COLMAP models in, metres and residuals out."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from geometry.errors import InputError
from geometry.modalities import Depth
from geometry.parameterization import Parameterization
from lightning_modules.inference.anchored_metres import AnchoredMetres
from lightning_modules.inference.anchors import read_anchors
from lightning_modules.inference.camera_estimate import CameraEstimator
from lightning_modules.inference.photos import Photo, find_photos
from lightning_modules.inference.point_cloud import PointCloudCamera
from tests.geometry.test_camera_recovery import scene
from tests.lightning_modules.inference.runs import make_run, photo, predict

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("depth"))


@pytest.fixture
def photos(tmp_path):
    for name in ("photos/a.png", "photos/b.png", "photos/sub/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(24, 32)).save(tmp_path / name)
    return find_photos([str(tmp_path / "photos")], tmp_path / "out")


def table(path, *rows, head="image,x,y,metres"):
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def test_metres_of_a_photo_follow_its_anchors_and_residuals_are_written_and_said(run, photos, tmp_path, capsys):
    words = (tmp_path / "photos/b.png", "--ckpt_path", run, "--output", tmp_path / "out")
    assert predict(*words) == 0
    relative = np.load(tmp_path / "out/b_depth.npy")
    generator = np.random.default_rng(0)
    at = list(zip(generator.integers(32, size=12), generator.integers(24, size=12), strict=True))
    rows = [f"b.png,{x + 0.4},{y + 0.7},{2 + 6 * float(relative[y, x])}" for x, y in at]
    rows[3] = f"b.png,{at[3][0]},{at[3][1]},55"
    anchors = table(tmp_path / "anchors.csv", *rows, "not_there.png,1,1,1")
    assert predict(*words, "--anchors", anchors, "--point-cloud", "--millimetres") == 0
    assert not (tmp_path / "out/b_mm.png").exists(), "millimetres are measured: there is one file of them"
    metres = np.load(tmp_path / "out/b_depth_metres.npy")
    assert metres == pytest.approx(2 + 6 * relative, rel=1e-4)
    stored = cv2.imread(str(tmp_path / "out/b_depth_millimetres.png"), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16 and np.abs(stored - 1000 * metres).max() <= 0.51
    with (tmp_path / "out/b_anchors.csv").open() as file:
        used = [int(row["used"]) for row in csv.DictReader(file)]
    assert used[3] == 0 and sum(used) == 11
    assert "11 of 12 anchors used" in capsys.readouterr().out
    ply = (tmp_path / "out/b_points.ply").read_bytes().split(b"end_header\n")[1]
    depth = -np.frombuffer(ply, [("xyz", "<f4", 3), ("rgb", "u1", 3)])["xyz"][:, 2]
    assert depth.reshape(24, 32) == pytest.approx(metres, rel=1e-5)


@pytest.mark.parametrize("name", ["log", "disparity"])
def test_published_depth_of_other_parameterizations_is_fitted_in_their_own_space(tmp_path, name):
    modality, space = Depth(name), Parameterization(name)
    depth = torch.linspace(1.5, 40, 24 * 32).reshape(1, 1, 24, 32)
    values = space.apply(depth)
    values = 2 * (values - values.min()) / (values.max() - values.min()) - 1
    published = modality.publish(values)[0, 0].numpy()
    anchors = [(x + 0.5, y + 0.5, float(depth[0, 0, y, x])) for x in range(1, 32, 7) for y in range(1, 24, 5)]
    metric = AnchoredMetres(modality, {tmp_path / "a.png": np.array(anchors)})
    metres, sentence = metric.write(tmp_path / "a.png", published, tmp_path, "a")
    assert metres == pytest.approx(depth[0, 0].numpy(), rel=2e-3)
    assert f"depth as {name}" in sentence and "20 of 25 " not in sentence


@pytest.mark.parametrize(
    "image", ["1 1 0 0 0 0 0 3 1", "1 1 0 0 0 0 0 3", "1 x 0 0 0 0 0 3 1 a.png", "1 1 0 0 0 0 0 inf 1 a.png"]
)
def test_an_image_of_colmap_without_a_name_or_place_is_refused(tmp_path, photos, image):
    (tmp_path / "images.txt").write_text(f"{image}\n5.5 6.5 7\n")
    (tmp_path / "points3D.txt").write_text("7 -2 0.5 4 255 0 0 0.1 1 0\n")
    with pytest.raises(InputError, match="not as COLMAP writes them"):
        read_anchors(tmp_path, photos[:1])


def test_points_of_colmap_are_depths_along_the_optical_axis(tmp_path, photos):
    folder = tmp_path / "colmap"
    folder.mkdir()
    # The camera is turned by 90 degrees around y and moved: world (x, y, z) is at depth -x + 3.
    half = np.sqrt(0.5)
    (folder / "images.txt").write_text(
        f"# comment\n1 {half} 0 {half} 0 0 0 3 1 sub/a.png\n5.5 6.5 7 9 9 -1 2 3 8\n2 1 0 0 0 0 0 0 1 b.png\n\n"
    )
    (folder / "points3D.txt").write_text("# comment\n7 -2 0.5 4 255 0 0 0.1 1 0\n8 5 0 0 0 0 0 0.1 1 1\n")
    found = read_anchors(folder, photos)
    assert {file.relative_to(tmp_path).as_posix(): anchors.tolist() for file, anchors in found.items()} == {
        "photos/sub/a.png": [[5.5, 6.5, pytest.approx(5.0)]]
    }, "points without a number and behind the camera are left out"


def test_a_camera_that_nobody_knows_is_estimated_from_normals_and_called_an_estimate(tmp_path):
    depth, normals = scene(70.0)
    relative = ((depth - depth.min()) / (depth.max() - depth.min())).float().numpy()
    np.save(tmp_path / "a_normals.npy", normals.movedim(0, -1).float().numpy())
    estimator, photo_a = CameraEstimator(Depth(), tmp_path), Photo(tmp_path / "a.png", Path(), "a")
    found, camera, says = estimator.estimate(photo_a, relative, None, PointCloudCamera(near_m=2.0))
    assert found == pytest.approx((depth * 2 / depth.min()).numpy(), rel=1e-2)
    assert camera.intrinsics == pytest.approx((70, 70, 40, 30), rel=1e-3) and "estimated, not measured" in says
    metres, camera, _ = estimator.estimate(photo_a, relative, depth.float().numpy(), PointCloudCamera())
    assert camera.intrinsics == pytest.approx((70, 70, 40, 30), rel=1e-3)
    assert np.array_equal(metres, depth.float().numpy())
    with pytest.raises(InputError, match="with --anchors alone"):
        CameraEstimator(Depth("log"), tmp_path).estimate(photo_a, relative, None, PointCloudCamera())


class TestMistakes:
    def test_normals_that_are_missing_or_beside_a_known_camera(self, run, photos, tmp_path, capsys):
        words = (tmp_path / "photos/b.png", "--ckpt_path", run, "--output", tmp_path / "out", "--normals", tmp_path)
        assert predict(*words) == 2 and "--normals concerns point clouds alone" in capsys.readouterr().err
        assert predict(*words, "--point-cloud", "--fov-deg", 60) == 2
        assert "leave out the one or the other" in capsys.readouterr().err
        assert predict(*words, "--point-cloud") == 1
        assert "b_normals.npy is missing" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("rows", "head", "problem"),
        [
            (["b.png,1,1,x"], "image,x,y,metres", "line 2: x, y and metres must be numbers"),
            (["b.png,1,1,-2"], "image,x,y,metres", "line 2: x and y must be finite, and metres larger"),
            (["b.png,1,1"], "image,x,y,metres", "line 2: x, y and metres must be numbers"),
            (["b.png,1,1"], "image,x,y", "has no column metres"),
            (["1,1,2"], "x,y,metres", "has no column image"),
            ([",1,1,2"], "image,x,y,metres", "line 2 names no image"),
            (["a.png,1,1,2"], "image,x,y,metres", "may be .*give more of the path"),
            (["c.png,1,1,2"], "image,x,y,metres", "no anchor for any of the images; .* names is c.png"),
            ([], "image,x,y,metres", "no anchor for any"),
        ],
    )
    def test_tables_that_cannot_be_used(self, tmp_path, photos, rows, head, problem):
        with pytest.raises(Exception, match=problem):
            read_anchors(table(tmp_path / "anchors.csv", *rows, head=head), photos)

    def test_a_photo_whose_anchors_lie_outside_fails_and_the_others_go_on(self, run, photos, tmp_path, capsys):
        anchors = table(tmp_path / "anchors.csv", "b.png,99,1,2", "b.png,1,1,2")
        words = (tmp_path / "photos", "--ckpt_path", run, "--output", tmp_path / "out", "--anchors", anchors)
        assert predict(*words) == 1
        said = capsys.readouterr()
        assert "anchor at x 99, y 1 lies outside the image of 32x24" in said.err
        assert "2 predicted, 1 failed" in said.out and "2 of 3 images have no anchors" in said.out

    def test_options_that_exclude_each_other(self, run, photos, tmp_path, capsys):
        anchors = table(tmp_path / "anchors.csv", "b.png,1,1,2")
        words = (tmp_path / "photos", "--ckpt_path", run, "--output", tmp_path / "out", "--anchors", anchors)
        assert predict(*words, "--point-cloud", "--near-m", 1) == 2
        assert "leave out the one or the other" in capsys.readouterr().err
        assert predict(*words, "--anchor-tolerance", 0) == 2
        assert "--anchor_tolerance must lie between" in capsys.readouterr().err
