import dataclasses

import numpy as np
import pytest

from datamodules.preparation.checking import check_dataset
from datamodules.shards.codecs import encode_array
from datamodules.shards.files import write_shard
from tests.helpers.planes import NORMAL, encode_plane, make_dataset


def check_with(folder, **entries):
    """Problems of a data set in which one sample has other entries; the checksum is right."""
    dataset = make_dataset(folder, shards={"train": [2]})
    sample = encode_plane("bad")
    changed = {name.replace("_", "."): data for name, data in entries.items()}
    bad = dataclasses.replace(sample, entries={**sample.entries, **changed})
    shard = write_shard(folder, "train/planes-train-000000.tar", [encode_plane("good"), bad])
    dataclasses.replace(dataset.manifest, splits={"train": [shard]}).write(folder)
    return check_dataset(folder, progress=False)[0].problems


def field(shape, value):
    return encode_array(np.full(shape, value, np.float16))


def test_a_good_data_set_has_no_problems(tmp_path):
    make_dataset(tmp_path)
    train, val = check_dataset(tmp_path, progress=False)
    assert (train.samples, train.shards, val.samples) == (7, 2, 3)
    depth = train.modalities["depth"]
    assert depth.mean_share == 1 and 2 < depth.minimum < depth.maximum < 10
    assert not train.problems and not val.problems


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"depth_blosc": field((12, 16), np.nan)}, "NaN"),
        ({"depth_blosc": field((12, 16), -1)}, "negative"),
        ({"depth_blosc": field((12, 16), 70)}, "far plane"),
        ({"depth_blosc": field((12, 15), 5)}, r"\(12, 15\)"),
        ({"normals_blosc": field((3, 12, 16), 0.9)}, "unit"),
        ({"normals_blosc": field((3, 12, 16), np.nan)}, "unit"),
        ({"image_png": b"rubbish"}, "image.png"),
        ({"json": b"[]"}, "JSON"),
        ({"json": b'{"camera_from_pixel": [1, 2]}'}, "3x3"),
        ({"json": b'{"camera_from_pixel": [[1], [1, 2], 3]}'}, "3x3"),
        ({"json": b'{"camera_from_pixel": [[1, 2, 1%s], [1, 2, 3], [1, 2, 3]]}' % (b"0" * 400)}, "3x3"),
        ({"json": b'{"pixel_center": {}}'}, "pixel_center"),
        ({"depth_blosc": field((), 5)}, r"\(1,\)"),
        ({"normals_blosc": field((), 1)}, r"normals has the shape \(1,\)"),
    ],
)
def test_every_kind_of_damage_is_found_and_named(tmp_path, entries, problem):
    problems = check_with(tmp_path, **entries)
    assert problems
    assert all("planes-train-000000.tar" in line for line in problems)
    assert any("'bad'" in line for line in problems)
    assert pytest.importorskip("re").search(problem, " ".join(problems))


def test_a_sample_whose_camera_is_unknown_is_checked_without_one(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": [1]})
    entries = encode_plane("a").entries
    sample = dataclasses.replace(encode_plane("a"), entries={name: entries[name] for name in entries if name != "json"})
    shard = write_shard(tmp_path, "train/planes-train-000000.tar", [sample])
    dataclasses.replace(dataset.manifest, splits={"train": [shard]}).write(tmp_path)
    (check,) = check_dataset(tmp_path, progress=False)
    assert check.samples == 1 and not check.problems and not check.modalities["normals"].differences


def test_a_missing_shard_is_a_problem_and_the_others_are_still_checked(tmp_path):
    make_dataset(tmp_path)
    (tmp_path / "train/planes-train-000000.tar").unlink()
    train, val = check_dataset(tmp_path, progress=False)
    assert train.samples == 4 and len(train.problems) == 2
    assert not val.problems


def test_a_key_that_comes_in_two_shards_is_found(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": [1, 1]})
    shards = [write_shard(tmp_path, f"train/planes-train-{i:06d}.tar", [encode_plane("same")]) for i in range(2)]
    dataclasses.replace(dataset.manifest, splits={"train": shards}).write(tmp_path)
    assert "exists twice" in check_dataset(tmp_path, progress=False)[0].problems[0]


def test_normals_that_fit_the_depth_are_told_from_those_of_another_frame(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": [2]})
    good = check_dataset(tmp_path, progress=False)[0]
    assert good.modalities["normals"].difference < 1 and len(good.modalities["normals"].differences) == 2
    sample = encode_plane("mirrored")
    mirrored = np.broadcast_to((NORMAL * [-1, 1, 1])[:, None, None], (3, 12, 16)).astype(np.float16)
    entries = {**sample.entries, "normals.blosc": encode_array(mirrored)}
    shard = write_shard(tmp_path, "train/planes-train-000000.tar", [dataclasses.replace(sample, entries=entries)])
    dataclasses.replace(dataset.manifest, splits={"train": [shard]}).write(tmp_path)
    bad = check_dataset(tmp_path, progress=False)[0]
    assert "'mirrored': normals differ from those computed from depth by 60 degrees" in bad.problems[0]
    assert check_dataset(tmp_path, progress=False, compare=0)[0].modalities["normals"].difference is None
