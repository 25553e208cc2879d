"""Broken input is named, counted and skipped, and harms nothing beside it."""

import json

import cv2
import numpy as np
import pytest

from datamodules.preparation.checking import check_dataset
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.shards.manifest import read_dataset
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.hypersim_frames import HypersimFrame
from datamodules.sources.virtual_kitti import VirtualKitti, VirtualKittiFrame
from geometry.errors import InputError
from tests.helpers.planes import write_hypersim_frame, write_virtual_kitti_frame

SIZE = (24, 32)
ROOM = HypersimFrame("ai_001_001", "cam_00", 1)
STREET = VirtualKittiFrame("Scene02", "clone", 0, 1)


def rooms(folder):
    for number in range(5):
        write_hypersim_frame(folder, number=number, size=SIZE)
    return Hypersim(folder, SIZE)


def streets(folder):
    for number in range(5):
        write_virtual_kitti_frame(folder, number=number)
    return VirtualKitti(folder, (32, 96))


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def prepare(raw, out, **arguments):
    said = []
    options = arguments.pop("options", ShardOptions(samples_per_shard=2))
    prepare_dataset(raw, out, options, progress=False, report=said.append, **arguments)
    return said


def break_hypersim(folder, damage):
    path = ROOM.path(folder, "color" if damage == "truncated colour" else "depth_meters")
    if damage.startswith("truncated"):
        cut(path)
    elif damage == "missing geometry":
        path.unlink()
    elif damage == "no data":
        path.write_bytes(b"")
    else:
        write_hypersim_frame(folder, number=1, size=SIZE, depth_meters=np.ones((3, 3), np.float16))


def break_virtual_kitti(folder, damage):
    kind = "rgb" if "image" in damage else "depth"
    path = STREET.path(folder / f"vkitti_2.0.3_{kind}", kind)
    if damage.startswith("truncated"):
        cut(path)
    elif damage == "wrong size":
        cv2.imwrite(str(path), np.ones((7, 9), np.uint16))
    else:
        path.write_bytes(b"not a PNG")


HYPERSIM_DAMAGE = ["truncated colour", "truncated depth", "missing geometry", "no data", "wrong size"]
KITTI_DAMAGE = ["truncated image", "truncated depth", "unreadable depth", "wrong size"]


@pytest.mark.parametrize(
    ("make", "damage", "spoil", "frame"),
    [(rooms, damage, break_hypersim, ROOM) for damage in HYPERSIM_DAMAGE]
    + [(streets, damage, break_virtual_kitti, STREET) for damage in KITTI_DAMAGE],
)
def test_a_broken_sample_stops_with_its_name_or_is_skipped_without_harm_to_other_shards(
    tmp_path, make, damage, spoil, frame
):
    raw = make(tmp_path / "raw")
    prepare(raw, tmp_path / "good")
    spoil(tmp_path / "raw", damage)
    with pytest.raises(InputError, match=rf"sample {frame.key}: .*--max_errors"):
        prepare(raw, tmp_path / "out")
    said = prepare(raw, tmp_path / "out", max_errors=1)
    assert any(line.startswith(f"Skipped: sample {frame.key}: ") for line in said)
    checks = check_dataset(tmp_path / "out", progress=False)
    assert not [problem for check in checks for problem in check.problems]
    good, out = (read_dataset(tmp_path / name).manifest for name in ("good", "out"))
    assert out.num_samples("train") == 4 and out.statistics["train"]["skipped"] == [frame.key]
    same = [a.sha256 == b.sha256 for a, b in zip(good.splits["train"], out.splits["train"], strict=True)]
    assert same.count(False) == 1


def test_one_broken_sample_too_many_stops_and_the_shards_before_stay(tmp_path):
    raw = rooms(tmp_path / "raw")
    for number in (1, 2, 3):
        HypersimFrame("ai_001_001", "cam_00", number).path(tmp_path / "raw", "depth_meters").unlink()
    with pytest.raises(InputError, match="broken sample number 3"):
        prepare(raw, tmp_path / "out", max_errors=2)
    prepare(raw, tmp_path / "out", max_errors=3)
    assert read_dataset(tmp_path / "out").manifest.num_samples("train") == 2


def test_a_shard_of_broken_samples_alone_is_left_out(tmp_path):
    raw = rooms(tmp_path / "raw")
    ROOM.path(tmp_path / "raw", "depth_meters").unlink()
    prepare(raw, tmp_path / "out", max_errors=1, options=ShardOptions(samples_per_shard=1))
    assert len(read_dataset(tmp_path / "out").manifest.splits["train"]) == 4
    assert len(list((tmp_path / "out").rglob("*.tar*"))) == 4


def test_samples_with_too_many_invalid_pixels_are_left_out_and_counted(tmp_path):
    raw = rooms(tmp_path / "raw")
    half_empty = np.full(SIZE, 3, np.float16)
    half_empty[:13] = np.nan
    write_hypersim_frame(tmp_path / "raw", number=1, size=SIZE, depth_meters=half_empty)
    for ratio, kept in ((13 / 24, 5), (0.5, 4)):
        out = tmp_path / str(kept)
        prepare(raw, out, options=ShardOptions(max_invalid_ratio=ratio))
        statistics = json.loads((out / "dataset.json").read_text())["statistics"]["train"]
        assert statistics["samples"] == kept and len(statistics["left_out"]) == 5 - kept
