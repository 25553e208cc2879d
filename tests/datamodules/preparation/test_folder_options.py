from pathlib import Path

import cv2
import numpy as np
import pytest

from datamodules.prepare import main
from datamodules.shards.files import decode_sample
from datamodules.shards.manifest import read_dataset
from tests.helpers.planes import NORMAL, plane_depth, rays_of
from tests.helpers.shards import iterate_shard

SAMPLES = Path(__file__).parents[3] / "../shared/samples"
SIZE = (24, 32)
CAMERA = np.diag([1, -1, -1]) @ np.linalg.inv(np.array([[30.0, 0, 15.5], [0, 30, 11.5], [0, 0, 1]]))
NYU_INTRINSICS = ["518.8579", "519.46961", "325.58245", "253.73617"]


def write_frame(root, name):
    for kind, suffix, array in (
        ("image", "jpg", np.full((*SIZE, 3), 90, np.uint8)),
        ("depth", "png", np.rint(1000 * plane_depth(rays_of(CAMERA, *SIZE, 0.0))).astype(np.uint16)),
    ):
        path = root / kind / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), array)


def prepare(root, out, *options, images="image"):
    command = ["folder", "--images", f"{root}/{images}", "--depth", f"{root}/depth", "--out", str(out)]
    return main([*command, "--workers", "1", "--quiet", *options])


def samples_of(out, split="train"):
    dataset = read_dataset(out)
    roles = (*dataset.manifest.entries, "info")
    shards = dataset.manifest.splits[split]
    return [decode_sample(s, roles) for shard in shards for s in iterate_shard(dataset.shard_url(shard), roles)]


def test_own_images_become_a_checked_data_set(tmp_path, capsys):
    for name in ("kitchen/1", "kitchen/2", "hall/1"):
        write_frame(tmp_path, name)
    options = ("--depth-scale", "1000", "--intrinsics", "30", "30", "15.5", "11.5", "--val-fraction", "0.5")
    assert prepare(tmp_path, tmp_path / "out", *options, "--name", "home", "--far", "20") == 0
    manifest = read_dataset(tmp_path / "out").manifest
    assert (manifest.name, manifest.image_size, manifest.ranges["depth"][1]) == ("home", SIZE, 20.0)
    assert manifest.num_samples("train") + manifest.num_samples("val") == 3 and manifest.num_samples("val")
    sample = samples_of(tmp_path / "out")[0]
    expected = plane_depth(rays_of(np.array(sample["info"]["camera_from_pixel"]), *SIZE, 0.0))
    np.testing.assert_allclose(sample["depth"], expected, rtol=1e-3)
    assert np.einsum("i,ihw->hw", NORMAL, sample["normals"].astype(np.float32)).mean() > 0.999
    assert main(["check", str(tmp_path / "out"), "--quiet"]) == 0
    assert main(["preview", str(tmp_path / "out"), "--out", str(tmp_path / "sheet.png")]) == 0


def test_without_cameras_a_data_set_of_depth_alone_passes_the_check(tmp_path, capsys):
    write_frame(tmp_path, "1")
    assert prepare(tmp_path, tmp_path / "out", "--depth-scale", "1000", "--size", "12", "16") == 0
    assert "normals cannot be computed" in capsys.readouterr().out
    assert read_dataset(tmp_path / "out").manifest.entries == ("image", "depth")
    assert samples_of(tmp_path / "out")[0]["info"]["camera_from_pixel"] is None
    assert main(["check", str(tmp_path / "out"), "--quiet"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--depth_scale"),
        (("--depth-scale", "1000", "--normals", "from-depth"), "--normals from-depth needs cameras"),
        (("--depth-scale", "1000", "--normals", "nowhere"), "nowhere is not a folder"),
        (("--depth-scale", "1000", "--depth-pattern", "depth_{}.png"), "holds no depth file named like 'depth_{}.png'"),
        (("--depth-scale", "1000", "--crop", "25", "32"), "smaller than the crop"),
        (("--depth-scale", "1000", "--cameras", "nowhere.txt"), "nowhere.txt does not exist"),
        (("--depth-scale", "1000", "--normals-pattern", "n_{}.png"), "--normals_pattern names files of --normals"),
        (("--depth-scale", "1000", "--normals-frame", "dsine"), "--normals_frame is that of files"),
        (("--depth-scale", "1000", "--depth-error", "0.1", "--normals", "none"), "--depth_error smooths normals"),
        (("--depth-scale", "1000", "--crop-at", "bottom"), "--crop_at says where --crop"),
        (("--depth-scale", "1000", "--array-name", "z"), "--array_name z: none of the depth files"),
        (("--depth-scale", "1e300"), "not one pixel of the split train has valid depth"),
    ],
)
def test_a_mistake_is_one_line_and_never_a_success(tmp_path, capsys, options, message):
    write_frame(tmp_path, "1")
    assert prepare(tmp_path, tmp_path / "out", *options) == 2
    text = capsys.readouterr().err
    assert message in text and text.startswith("error: ") and text.count("\n") == 1
    assert (tmp_path / "out" / "dataset.json").exists() == ("not one pixel" in message)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="real samples (../shared/samples) are not there")
def test_real_indoor_pairs_keep_their_metres_and_their_floor_points_up(tmp_path):
    options = ("--image-pattern", "rgb_{}.jpg", "--depth-pattern", "sync_depth_{}.png", "--depth-scale", "1000")
    more = ("--depth-error", "0.005", "--intrinsics", *NYU_INTRINSICS, "--image-format", "png")
    assert prepare(SAMPLES / "nyu", tmp_path / "out", *options, *more, images="rgb") == 0
    for sample in samples_of(tmp_path / "out"):
        name = sample["info"]["source"]
        millimetres = cv2.imread(str(SAMPLES / "nyu" / "depth" / f"sync_depth_{name}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(sample["depth"], millimetres / 1000, rtol=6e-4)
        known = (sample["normals"] != 0).any(axis=0)
        # The lower part of all three images is mostly floor, seen by a camera that is nearly level.
        floor = sample["normals"].astype(np.float32)[:, 400:460, 200:500][:, known[400:460, 200:500]]
        assert np.median(floor, axis=1)[1] > 0.8


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="real samples (../shared/samples) are not there")
def test_real_sparse_outdoor_depth_keeps_every_point_in_range(tmp_path):
    crop = ("--crop", "352", "1216", "--crop-at", "bottom")
    options = ("--depth-scale", "256", "--far", "80", "--normals", "none", *crop)
    assert prepare(SAMPLES / "kitti", tmp_path / "out", *options, images="rgb") == 0
    for sample in samples_of(tmp_path / "out"):
        path = SAMPLES / "kitti" / "depth" / f"{sample['info']['source']}.png"
        metres = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[-352:, 13:1229] / 256
        np.testing.assert_allclose(sample["depth"], np.where(metres <= 80, metres, 0), rtol=6e-4)
