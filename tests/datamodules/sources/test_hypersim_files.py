"""Scenes that are still in their archives make the same samples as extracted ones."""

import os
import shutil
import zipfile

import numpy as np
import pytest

from datamodules.sources.hypersim import Hypersim
from datamodules.sources.hypersim_frames import HypersimFrame, HypersimSelection, list_hypersim_frames
from geometry.errors import InputError
from tests.helpers.planes import write_hypersim_frame

SIZE = (24, 32)
SCENES = ("ai_001_001", "ai_001_002", "ai_001_003")


@pytest.fixture
def extracted(tmp_path):
    for number, scene in enumerate(SCENES):
        write_hypersim_frame(tmp_path / "extracted", scene, number=number, size=SIZE)
    return tmp_path / "extracted"


def pack(extracted, raw, scene, method=zipfile.ZIP_DEFLATED, prefix=True):
    raw.mkdir(exist_ok=True)
    with zipfile.ZipFile(raw / f"{scene}.zip", "w", method) as archive:
        archive.writestr(f"{scene}/images/scene_cam_00_final_preview/frame.0000.color.jpg", b"preview")
        for path in sorted((extracted / scene).rglob("*.hdf5")):
            name = path.relative_to(extracted if prefix else extracted / scene).as_posix()
            archive.write(path, name)
    return raw / f"{scene}.zip"


def test_archives_of_either_layout_and_folders_mix(extracted, tmp_path):
    raw = tmp_path / "raw"
    pack(extracted, raw, SCENES[0])
    pack(extracted, raw, SCENES[1], zipfile.ZIP_STORED, prefix=False)
    shutil.copytree(extracted / SCENES[2], raw / SCENES[2])
    frames = list_hypersim_frames(raw, HypersimSelection()).splits
    assert frames == list_hypersim_frames(extracted, HypersimSelection()).splits
    for frame in frames["train"]:
        sample, expected = (Hypersim(folder, SIZE).load(frame) for folder in (raw, extracted))
        assert sample.info == expected.info and sample.info["normals"] == "native"
        np.testing.assert_array_equal(sample.image, expected.image)
        assert sample.targets.keys() == expected.targets.keys() == {"depth", "normals"}
        for name in sample.targets:
            np.testing.assert_array_equal(sample.targets[name], expected.targets[name])


def test_a_scene_extracted_in_part_takes_the_rest_from_its_archive(extracted, tmp_path):
    raw = tmp_path / "raw"
    pack(extracted, raw, SCENES[0])
    frame = HypersimFrame(SCENES[0], "cam_00", 0)
    target = frame.path(raw, "color")
    target.parent.mkdir(parents=True)
    shutil.copy(frame.path(extracted, "color"), target)
    assert list_hypersim_frames(raw, HypersimSelection()).splits == {"train": [frame]}
    assert Hypersim(raw, SIZE).load(frame).targets["depth"].all()


def test_a_file_missing_from_its_archive_is_named(extracted, tmp_path):
    frame = HypersimFrame(SCENES[0], "cam_00", 0)
    frame.path(extracted, "render_entity_id").unlink()
    archive = pack(extracted, tmp_path / "raw", SCENES[0])
    with pytest.raises(InputError, match=rf"{archive.name}: images/.*frame\.0000\.render_entity_id\.hdf5 is missing"):
        Hypersim(archive.parent, SIZE).load(frame)


def test_a_damaged_file_in_an_archive_is_named_and_never_read_as_data(extracted, tmp_path):
    frame = HypersimFrame(SCENES[0], "cam_00", 0)
    archive = pack(extracted, tmp_path / "raw", SCENES[0], zipfile.ZIP_STORED)
    depth = frame.path(extracted, "depth_meters").read_bytes()
    data = bytearray(archive.read_bytes())
    data[data.index(depth) + len(depth) - 100] ^= 1
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"depth_meters\.hdf5 cannot be read \(its checksum"):
        Hypersim(archive.parent, SIZE).load(frame)


def test_an_archive_cut_off_while_downloading_is_named(extracted, tmp_path):
    archive = pack(extracted, tmp_path / "raw", SCENES[0])
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(InputError, match=rf"{archive.name} is no complete archive.*Download it again"):
        list_hypersim_frames(archive.parent, HypersimSelection())


def test_a_file_that_would_unpack_to_gigabytes_is_refused_by_name(tmp_path):
    frame = HypersimFrame(SCENES[0], "cam_00", 0)
    with zipfile.ZipFile(tmp_path / f"{SCENES[0]}.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(frame.name("color"), "w", force_zip64=True) as member:
            for _ in range(60):
                member.write(bytes(8 << 20))
    with pytest.raises(
        InputError, match=rf"{SCENES[0]}\.zip: images.*color\.hdf5 cannot be read \(a file in the archive has"
    ):
        Hypersim(tmp_path, SIZE).load(frame)


def test_a_file_that_unpacks_to_more_than_its_archive_says_is_not_unpacked_further(extracted, tmp_path):
    frame = HypersimFrame(SCENES[0], "cam_00", 0)
    archive = pack(extracted, tmp_path / "raw", SCENES[0])
    with zipfile.ZipFile(archive) as content:
        size = content.getinfo(f"{SCENES[0]}/{frame.name('color')}").file_size
    data = bytearray(archive.read_bytes())
    entry = data.index(frame.name("color").encode(), data.index(b"PK\x01\x02"))
    at = data.rindex(b"PK\x01\x02", 0, entry) + 24
    assert int.from_bytes(data[at : at + 4], "little") == size
    data[at : at + 4] = (size - 8).to_bytes(4, "little")
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"color\.hdf5 cannot be read \(its checksum"):
        Hypersim(archive.parent, SIZE).load(frame)


@pytest.mark.parametrize("target", ["/dev/zero", "fifo"])
def test_an_archive_that_is_no_regular_file_is_refused_and_not_waited_for(tmp_path, target):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "ai_001_001.zip").symlink_to(tmp_path / target)
    with pytest.raises(InputError, match=r"ai_001_001\.zip.*no regular file"):
        Hypersim(tmp_path, SIZE).list_frames()
