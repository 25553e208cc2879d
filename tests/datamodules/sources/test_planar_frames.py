"""TartanAir, UrbanSyn, UnrealStereo4K and IRS: rendered frames in their layouts give back what was rendered."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("OpenEXR")

from datamodules.preparation.checking import check_dataset
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.prepare import main
from datamodules.sources.irs import IRS
from datamodules.sources.tartanair import TartanAir
from datamodules.sources.unreal_stereo_4k import UnrealStereo4K
from datamodules.sources.urbansyn import UrbanSyn
from geometry.errors import InputError
from tests.helpers.planes import rays_of
from tests.helpers.rendered_layouts import (
    SIZE,
    rays_through,
    street,
    write_irs,
    write_tartanair,
    write_unreal_stereo,
    write_urbansyn,
)


def write(kind, raw):
    """Write a frame of a kind; return the data set, the rendered frame, its rays, and how exact depth is stored."""
    if kind.startswith("tartanair"):
        version = int(kind[-1])
        frame = write_tartanair(raw, version)
        size = frame.depth.shape
        return TartanAir(raw, size), frame, rays_through(size[1] / 2, size[1] / 2, size), 1e-6
    if kind == "urbansyn":
        return UrbanSyn(raw, SIZE), write_urbansyn(raw), rays_through(50.0, 40.0), 2.0**-10
    if kind == "irs":
        return IRS(raw, SIZE), write_irs(raw), rays_through(SIZE[1] / 2, SIZE[1] / 2), 1e-5
    return UnrealStereo4K(raw, SIZE), write_unreal_stereo(raw)[0], rays_through(40.0, 40.0), 1e-5


KINDS = ("tartanair_1", "tartanair_2", "urbansyn", "unreal_stereo_4k", "irs")
ROOMS = ("unreal_stereo_4k", "irs")


@pytest.mark.parametrize("kind", KINDS)
def test_depth_camera_and_normals_are_those_that_were_rendered(kind, tmp_path):
    dataset, frame, rays, exactness = write(kind, tmp_path)
    sample = dataset.load(dataset.list_frames().splits["train"][0])
    depth, known = sample.targets["depth"], np.isfinite(frame.depth) & (frame.depth <= 80)
    assert known.any() and (kind in ROOMS or not known.all()), "the sky is tried, too"
    np.testing.assert_allclose(depth[known], frame.depth[known], rtol=exactness, atol=0.004)
    assert not depth[~known].any() and not sample.targets["normals"][:, ~known].any()
    np.testing.assert_allclose(rays_of(sample.camera_from_pixel, *depth.shape, sample.pixel_center), rays, atol=1e-5)
    both = known & (sample.targets["normals"] != 0).any(axis=0)
    cosine = (sample.targets["normals"].transpose(1, 2, 0) * frame.normals).sum(axis=2)[both]
    assert both.mean() > 0.5 * known.mean()
    assert np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))) < 3
    colour = np.clip(frame.color, 0, 1) ** (1 / 2.2) * 255
    assert np.abs(sample.image - colour).max() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_prepared_resized_and_found_good(kind, tmp_path):
    dataset, *_ = write(kind, tmp_path / "raw")
    options = {field: getattr(dataset, field) for field in ("raw",)}
    smaller = type(dataset)(size=(24, 32), **options)
    prepare_dataset(smaller, tmp_path / "out", ShardOptions(), progress=False)
    (check,) = check_dataset(tmp_path / "out", False, {"normals": 8})
    assert check.problems == [] and check.samples == 1
    content = json.loads((tmp_path / "out/dataset.json").read_text())
    assert content["name"] == dataset.name


def test_each_is_a_command_of_prepare(tmp_path, capsys):
    for kind in ("tartanair_1", "urbansyn", *ROOMS):
        write(kind, tmp_path / kind)
        command = kind.removesuffix("_1")
        out = tmp_path / "out" / command
        assert main([command, f"--raw={tmp_path / kind}", f"--out={out}", "--workers=1", "--quiet"]) == 0
        content = json.loads((out / "dataset.json").read_text())
        assert content["name"] == command and content["options"]["source"] == command
    assert "no scene is held out" in capsys.readouterr().out


def test_both_versions_of_tartanair_with_and_without_the_folder_that_archives_repeat_are_found(tmp_path):
    write_tartanair(tmp_path, 1, "office", repeated=True)
    write_tartanair(tmp_path, 1, "forest", number=1)
    write_tartanair(tmp_path, 2, "Ocean")
    frames = TartanAir(tmp_path, SIZE, val_scenes=("forest",)).list_frames()
    keys = {split: [frame.key for frame in members] for split, members in frames.splits.items()}
    train = ["Ocean-easy-P000-lcam_front-000000", "office-Easy-P000-left-000000"]
    assert keys == {"train": train, "val": ["forest-Easy-P000-left-000001"]}


def test_the_right_camera_of_unreal_stereo_has_its_own_depth(tmp_path):
    _, right = write_unreal_stereo(tmp_path)
    dataset = UnrealStereo4K(tmp_path, SIZE, cameras=(1,))
    (frame,) = dataset.list_frames().splits["train"]
    np.testing.assert_allclose(dataset.load(frame).targets["depth"], right.depth, rtol=1e-4)
    assert frame.key == "00000-1-00000"


def test_a_room_of_irs_is_held_out_in_every_light_and_frames_of_an_unknown_baseline_are_left_out(tmp_path):
    for folder in ("Home/RoyalRoom", "Home/RoyalRoom_Night", "Home/RoyalRoom_BL2", "Office/OfficeKIT_Dark"):
        write_irs(tmp_path, folder)
    frames = IRS(tmp_path, SIZE, val_scenes=("RoyalRoom",)).list_frames()
    keys = {split: [frame.key for frame in members] for split, members in frames.splits.items()}
    assert keys == {"train": ["OfficeKIT-Dark-00001"], "val": ["RoyalRoom-Night-00001", "RoyalRoom-plain-00001"]}
    assert frames.notices[-1].startswith("Left out: RoyalRoom_BL2;")


def test_urbansyn_holds_out_the_last_frames(tmp_path):
    for number in (1, 2, 10):
        write_urbansyn(tmp_path, number)
    frames = UrbanSyn(tmp_path, SIZE, val_frames=1).list_frames()
    assert [frame.key for frame in frames.splits["train"]] == ["street-0001", "street-0002"]
    assert [frame.key for frame in frames.splits["val"]] == ["held_out-0010"]


def test_what_is_wrong_with_files_is_one_line_that_names_them(tmp_path):
    def refused(dataset, match):
        with pytest.raises(InputError, match=match) as caught:
            for frame in dataset.list_frames().splits["train"]:
                dataset.load(frame)
        assert "\n" not in str(caught.value)

    refused(TartanAir(tmp_path, SIZE), "holds no frame; expected ENV/Easy/P000")
    write_tartanair(tmp_path / "t", 2)
    stored = tmp_path / "t/office/Data_easy/P000/depth_lcam_front/000000_lcam_front_depth.png"
    cv2.imwrite(str(stored), np.zeros((64, 64, 3), np.uint8))
    refused(TartanAir(tmp_path / "t", SIZE), r"_depth.png must hold the four bytes of a number")
    stored.unlink()
    refused(TartanAir(tmp_path / "t", SIZE), r"_depth.png is missing")
    refused(TartanAir(tmp_path / "t", SIZE, val_scenes=("sea",)), "has no scene 'sea' to hold out")

    write_urbansyn(tmp_path / "u")
    camera = tmp_path / "u/camera_metadata.json"
    for text, match in (
        ('{"parameters": []}', "must hold parameters"),
        ("{", "must hold parameters"),
        ('{"parameters": [{"Camera": {"focalLength_mm": 0, "sensorWidth_mm": 1, "sensorHeight_mm": 1}}]}', "above 0"),
    ):
        camera.write_text(text)
        refused(UrbanSyn(tmp_path / "u", SIZE), match)
    camera.unlink()
    refused(UrbanSyn(tmp_path / "u", SIZE), "camera_metadata.json cannot be read")
    with pytest.raises(InputError, match="val_frames must be fewer than the 1 frames"):
        UrbanSyn(tmp_path / "u", SIZE, val_frames=1).list_frames()

    write_irs(tmp_path / "i")
    (tmp_path / "i/Home/ArchvizKitchen/d_00001.exr").unlink()
    refused(IRS(tmp_path / "i", SIZE), "d_00001.exr is missing")

    write_unreal_stereo(tmp_path / "s")
    file = tmp_path / "s/00000/Extrinsics1/00000.txt"
    text = file.read_text()
    file.write_text(text.split("\n")[0])
    refused(UnrealStereo4K(tmp_path / "s", SIZE), r"Extrinsics1/00000.txt must have a line of 9 numbers")
    file.write_text((tmp_path / "s/00000/Extrinsics0/00000.txt").read_text())
    from datamodules.sources.unreal_stereo_4k import read_extrinsics

    read_extrinsics.cache_clear()
    refused(UnrealStereo4K(tmp_path / "s", SIZE), "place both cameras at one point")
    np.save(tmp_path / "s/00000/Disp0/00000.npy", np.ones((8, 8), np.float32))
    file.write_text(text)
    read_extrinsics.cache_clear()
    refused(UnrealStereo4K(tmp_path / "s", SIZE), "but its depth 8x8")
    with pytest.raises(InputError, match=r"--far_m must be more than 0\.01 m, not 0\.001"):
        TartanAir(tmp_path, SIZE, far_m=0.001)


def test_the_stand_ins_have_depth_at_many_distances():
    depth = street(32.0, 32.0).depth
    finite = depth[np.isfinite(depth)]
    assert finite.min() < 10 < finite.max()
