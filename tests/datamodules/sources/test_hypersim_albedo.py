"""Albedo of Hypersim and of folders of one's own: the file's values, where there is an object."""

import cv2
import numpy as np
import pytest

from datamodules import prepare
from datamodules.shards.files import decode_sample
from datamodules.shards.manifest import read_dataset
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.hypersim_frames import HypersimFrame
from geometry.errors import InputError
from synthetic_scenes import SyntheticHypersim
from tests.helpers.planes import write_hypersim_frame
from tests.helpers.shards import iterate_shard

SIZE = (24, 32)
FRAME = HypersimFrame("ai_001_001", "cam_00", 0)
ALL = ("depth", "normals", "albedo")


def write_frame(raw, reflectance, **replace):
    write_hypersim_frame(raw, size=SIZE, **replace)
    source = FRAME.path(raw, "color")
    write_hypersim_frame(raw, size=SIZE, color=reflectance, **replace)
    source.rename(FRAME.path(raw, "diffuse_reflectance"))
    write_hypersim_frame(raw, size=SIZE, **replace)


def test_it_is_the_reflectance_where_there_is_an_object(tmp_path):
    reflectance = np.random.default_rng(0).uniform(0, 1, (*SIZE, 3)).astype(np.float16)
    reflectance[2, 3], reflectance[4, 5] = np.inf, 1.25
    entity = np.ones(SIZE, np.int32)
    entity[7:9] = -1
    write_frame(tmp_path, reflectance, render_entity_id=entity)
    raw = Hypersim(tmp_path, SIZE, modalities=ALL)
    sample = raw.load(FRAME)
    albedo = sample.targets["albedo"]
    assert tuple(sample.targets) == raw.modalities == ALL
    unknown = (albedo < 0).all(axis=0)
    expected = entity < 0
    expected[2, 3] = True
    np.testing.assert_array_equal(unknown, expected)
    known = np.moveaxis(reflectance.astype(np.float32).clip(0, 1), -1, 0)[:, ~expected]
    np.testing.assert_array_equal(albedo[:, ~expected], known)


def test_a_frame_without_the_file_is_named_only_where_albedo_is_asked_for(tmp_path):
    write_hypersim_frame(tmp_path, size=SIZE)
    Hypersim(tmp_path, SIZE).load(FRAME)
    with pytest.raises(InputError, match=r"diffuse_reflectance\.hdf5 is missing"):
        Hypersim(tmp_path, SIZE, modalities=("albedo",)).load(FRAME)
    with pytest.raises(InputError, match="Hypersim holds depth, normals, albedo, not matting"):
        Hypersim(tmp_path, SIZE, modalities=("matting",)).list_frames()


def test_synthetic_rooms_come_with_their_exact_albedo(tmp_path):
    rooms = SyntheticHypersim(size=SIZE, frames_per_scene=1)
    rooms.write(tmp_path, 1, progress=False)
    (frame,) = Hypersim(tmp_path, SIZE).list_frames().splits["train"]
    albedo = Hypersim(tmp_path, SIZE, modalities=("albedo",)).load(frame).targets["albedo"]
    rendered = rooms.frame(0, 0)
    hit = rendered.entity_id >= 0
    assert hit.any() and rendered.reflectance[hit].std() > 0.05
    np.testing.assert_allclose(albedo[:, hit], rendered.reflectance[hit].T, atol=1e-3)


def test_a_folder_of_image_files_is_prepared_without_any_depth(tmp_path):
    for kind, value in (("image", 90), ("albedo", 186)):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "a.png"), np.full((*SIZE, 3), value, np.uint8))
    folders = ["--images", str(tmp_path / "image"), "--albedo", str(tmp_path / "albedo")]
    assert prepare.main(["folder", *folders, "--out", str(tmp_path / "out"), "--quiet", "--workers", "1"]) == 0
    dataset = read_dataset(tmp_path / "out")
    (sample,) = iterate_shard(dataset.shard_url(dataset.manifest.splits["train"][0]), ("image", "albedo"))
    np.testing.assert_allclose(decode_sample(sample, ("albedo",))["albedo"], (186 / 255) ** 2.2, rtol=1e-3)
    assert dataset.manifest.entries == ("image", "albedo")


def test_a_folder_of_images_alone_is_refused_in_one_line(tmp_path, capsys):
    (tmp_path / "image").mkdir()
    cv2.imwrite(str(tmp_path / "image/a.png"), np.full((*SIZE, 3), 90, np.uint8))
    folders = ["--images", str(tmp_path / "image"), "--out", str(tmp_path / "out")]
    assert prepare.main(["folder", *folders, "--workers", "1"]) == 2
    assert capsys.readouterr().err.startswith("error: there is nothing to prepare beside images")
