import cv2
import numpy as np
import pytest

from datamodules.prepare import main
from datamodules.shards.files import decode_sample
from datamodules.shards.manifest import read_dataset
from datamodules.sources.virtual_kitti import VirtualKitti, VirtualKittiFrame
from geometry.errors import InputError
from tests.helpers.planes import NORMAL, plane_depth, rays_of, write_virtual_kitti_frame
from tests.helpers.shards import iterate_shard

FRAME = VirtualKittiFrame("Scene02", "clone", 0, 0)
CROP = (32, 90)


def load(raw, crop=CROP, **options):
    return VirtualKitti(raw, crop, **options).load(FRAME)


@pytest.mark.parametrize("prefix", ["vkitti_2.0.3_", ""])
def test_the_crop_is_the_bottom_centre_in_metres(tmp_path, prefix):
    depth = write_virtual_kitti_frame(tmp_path, prefix=prefix)
    np.testing.assert_allclose(load(tmp_path).targets["depth"], depth[8:, 5:95], atol=0.0051)


def test_the_stored_camera_fits_the_crop(tmp_path):
    write_virtual_kitti_frame(tmp_path, intrinsics=(61.0, 63.0, 47.0, 18.0))
    sample = load(tmp_path)
    expected = plane_depth(rays_of(sample.camera_from_pixel, *CROP, sample.pixel_center))
    np.testing.assert_allclose(sample.targets["depth"], expected, atol=0.0051)
    assert sample.info["camera"] == "scene"


def test_normals_follow_from_the_depth(tmp_path):
    write_virtual_kitti_frame(tmp_path)
    normals = load(tmp_path).targets["normals"]
    known = (normals != 0).any(axis=0)
    assert known.mean() > 0.8
    cosine = np.einsum("i,ihw->hw", NORMAL, normals)[known]
    assert np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))) < 3


def test_sky_has_neither_depth_nor_normal(tmp_path):
    write_virtual_kitti_frame(tmp_path, sky_rows=14)
    sample = load(tmp_path)
    assert not sample.targets["depth"][:6].any() and sample.targets["depth"][6:].all()
    assert not sample.targets["normals"][:, :6].any()


def test_nothing_beyond_80_m_is_valid_and_400_m_do_not_wrap(tmp_path):
    write_virtual_kitti_frame(tmp_path)
    path = FRAME.path(tmp_path / "vkitti_2.0.3_depth", "depth")
    stored = np.full((40, 100), 1000, np.uint16)
    stored[-1, 5:10] = [8000, 8001, 40000, 65534, 0]
    cv2.imwrite(str(path), stored)
    assert load(tmp_path).targets["depth"][-1, :6].tolist() == [80, 0, 0, 0, 0, 10]


def test_a_missing_intrinsic_file_means_the_nominal_camera_and_is_said(tmp_path):
    depth = write_virtual_kitti_frame(tmp_path, intrinsics=None)
    sample = load(tmp_path)
    assert sample.info["camera"] == "nominal"
    expected = plane_depth(rays_of(sample.camera_from_pixel, *CROP, sample.pixel_center))
    np.testing.assert_allclose(expected, depth[8:, 5:95], rtol=1e-6)
    assert any(
        "1 of 1 sequences have no intrinsic.txt" in n for n in VirtualKitti(tmp_path, CROP).list_frames().notices
    )


def test_a_frame_smaller_than_the_crop_tells_which_option_to_use(tmp_path):
    write_virtual_kitti_frame(tmp_path)
    with pytest.raises(InputError, match=r"40x100 pixels, smaller than the crop of 352x1216.*--crop"):
        VirtualKitti(tmp_path).load(FRAME)


def test_scenes_held_out_do_not_train(tmp_path):
    for scene in ("Scene01", "Scene02", "Scene20"):
        write_virtual_kitti_frame(tmp_path, scene)
    splits = VirtualKitti(tmp_path, CROP).list_frames().splits
    assert {split: [f.scene for f in frames] for split, frames in splits.items()} == {
        "train": ["Scene02", "Scene20"],
        "val": ["Scene01"],
    }


def test_conditions_and_cameras_can_be_chosen(tmp_path):
    for condition in ("clone", "fog", "15-deg-left"):
        for camera in (0, 1):
            write_virtual_kitti_frame(tmp_path, condition=condition, camera=camera)
    raw = VirtualKitti(tmp_path, CROP, conditions=("15-deg-left", "fog"), cameras=(1,))
    assert [frame.key for frame in raw.list_frames().splits["train"]] == [
        "Scene02-15-deg-left-Camera_1-00000",
        "Scene02-fog-Camera_1-00000",
    ]
    with pytest.raises(InputError, match="--conditions"):
        VirtualKitti(tmp_path, CROP, conditions=("snow",)).list_frames()


def test_a_frame_without_depth_is_named(tmp_path):
    write_virtual_kitti_frame(tmp_path)
    FRAME.path(tmp_path / "vkitti_2.0.3_depth", "depth").unlink()
    with pytest.raises(InputError, match=r"depth_00000\.png is missing"):
        load(tmp_path)


def test_depth_with_eight_bits_is_refused(tmp_path):
    write_virtual_kitti_frame(tmp_path)
    cv2.imwrite(str(FRAME.path(tmp_path / "vkitti_2.0.3_depth", "depth")), np.ones((40, 100), np.uint8))
    with pytest.raises(InputError, match="16-bit"):
        load(tmp_path)


def test_an_unreadable_image_is_named(tmp_path):
    write_virtual_kitti_frame(tmp_path)
    FRAME.path(tmp_path / "vkitti_2.0.3_rgb", "rgb").write_bytes(b"not a jpeg")
    with pytest.raises(InputError, match=r"rgb_00000\.jpg"):
        load(tmp_path)


@pytest.mark.parametrize("folder", ["", "vkitti_2.0.3_rgb"])
def test_an_empty_raw_folder_is_an_error(tmp_path, folder):
    (tmp_path / folder).mkdir(exist_ok=True)
    with pytest.raises(InputError, match="holds no"):
        VirtualKitti(tmp_path).list_frames()


@pytest.mark.parametrize(
    ("preset", "trained", "held_out"),
    [
        ("paper", {"Scene01/fog", "Scene02/fog", "Scene02/rain"}, set()),
        ("marigold", {"Scene02/15-deg-left", "Scene02/clone"}, {"Scene01/clone"}),
        (
            "all",
            {"Scene02/15-deg-left", "Scene02/30-deg-right", "Scene02/clone", "Scene02/fog", "Scene02/rain"},
            {"Scene01/clone", "Scene01/fog"},
        ),
    ],
)
def test_a_preset_trains_on_what_its_authors_trained_on(tmp_path, preset, trained, held_out):
    for condition in ("clone", "fog"):
        write_virtual_kitti_frame(tmp_path / "raw", "Scene01", condition)
    for condition in ("15-deg-left", "30-deg-right", "clone", "fog", "rain"):
        write_virtual_kitti_frame(tmp_path / "raw", "Scene02", condition)
    words = (
        f"virtual_kitti --raw {tmp_path}/raw --out {tmp_path}/out --crop 32 96 --workers 1 --quiet --preset {preset}"
    )
    assert main(words.split()) == 0
    dataset = read_dataset(tmp_path / "out")
    prepared = {
        split: {
            "/".join(decode_sample(sample, ("info",))["info"]["source"].split("/")[:2])
            for shard in shards
            for sample in iterate_shard(dataset.shard_url(shard), ("info",))
        }
        for split, shards in dataset.manifest.splits.items()
    }
    assert (prepared.get("train"), prepared.get("val", set())) == (trained, held_out)


@pytest.mark.parametrize("row", ["nan 60 49.5 19.5", "1e400 60 49.5 19.5", "60 60 49.5 1e9", "-60 60 49.5 19.5"])
def test_intrinsics_that_are_no_camera_are_named(tmp_path, row):
    write_virtual_kitti_frame(tmp_path)
    (path,) = tmp_path.rglob("intrinsic.txt")
    path.write_text(f"\ufeffframe cameraID K[0,0] K[1,1] K[0,2] K[1,2]\r\n0 0 {row}\r\n", newline="")
    with pytest.raises(InputError, match=r"intrinsic\.txt: (focal lengths|the principal point)"):
        load(tmp_path)


def test_a_damaged_jpeg_is_named_in_place_of_training_on_grey_blocks(tmp_path):
    write_virtual_kitti_frame(tmp_path)
    path = FRAME.path(tmp_path / "vkitti_2.0.3_rgb", "rgb")
    noise = np.random.default_rng(0).integers(0, 255, (40, 100, 3), dtype=np.uint8)
    data = bytearray(cv2.imencode(".jpg", noise)[1].tobytes())
    path.write_bytes(data)
    load(tmp_path)
    data[len(data) // 2 : len(data) // 2 + 1024] = bytes(1024)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"rgb_00000\.jpg is a damaged JPEG"):
        load(tmp_path)
