import json
from dataclasses import replace

import numpy as np
import pytest

from datamodules.preparation.plan import ShardOptions, shard_order
from datamodules.preparation.run import prepare_dataset
from datamodules.shards.files import decode_sample
from datamodules.shards.manifest import read_dataset
from datamodules.sources.hypersim import Hypersim
from datamodules.sources.hypersim_frames import HypersimFrame
from geometry.errors import InputError
from tests.helpers.planes import write_hypersim_frame
from tests.helpers.shards import iterate_shard

SIZE = (24, 32)
HEADER = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    rows = []
    for number in range(7):
        write_hypersim_frame(folder, number=number, size=SIZE)
        rows.append(f"ai_001_001,cam_00,{number},True,,{'val' if number < 2 else 'train'}\n")
    (folder / "metadata_images_split_scene_v1.csv").write_text(HEADER + "".join(rows))
    return folder


def prepare(raw, out, workers=1, options=None, **arguments):
    options = options or ShardOptions(samples_per_shard=2)
    return prepare_dataset(
        Hypersim(raw, SIZE), out, options, workers, progress=False, report=lambda _: None, **arguments
    )


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_number_of_workers_changes_no_byte(raw, tmp_path):
    prepare(raw, tmp_path / "one")
    prepare(raw, tmp_path / "two", workers=2)
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert sorted(content(tmp_path / "one")) == [
        "dataset.json",
        "train/hypersim-train-000000.tar",
        "train/hypersim-train-000001.tar",
        "train/hypersim-train-000002.tar",
        "val/hypersim-val-000000.tar",
    ]


def test_a_prepared_sample_is_the_raw_frame_in_our_units(raw, tmp_path):
    prepare(raw, tmp_path, options=ShardOptions(image_format="png"))
    dataset = read_dataset(tmp_path)
    roles = ("image", "depth", "normals", "info")
    encoded = next(iter(iterate_shard(dataset.shard_url(dataset.manifest.splits["val"][0]), roles)))
    assert encoded.key == "ai_001_001-cam_00-0000"
    stored = decode_sample(encoded, roles)
    frame = Hypersim(raw, SIZE).load(HypersimFrame("ai_001_001", "cam_00", 0))
    np.testing.assert_allclose(stored["depth"], frame.targets["depth"], rtol=5e-4)
    np.testing.assert_allclose(stored["normals"], frame.targets["normals"], atol=5e-4)
    np.testing.assert_array_equal(stored["image"], frame.image)
    info = stored["info"]
    assert info["camera_from_pixel"] == frame.camera_from_pixel.tolist()
    assert (info["pixel_center"], info["valid_share"], info["image_size"]) == (0.5, 1.0, list(SIZE))
    assert info["depth_min_m"] <= info["depth_q02_m"] < info["depth_q98_m"] <= info["depth_max_m"]
    assert info["depth_max_m"] == pytest.approx(frame.targets["depth"].max(), rel=1e-5)


def test_training_shards_are_random_subsets_and_validation_keeps_its_order():
    frames = [HypersimFrame("ai_001_001", "cam_00", number) for number in range(100)]
    order = [frame.number for frame in shard_order(frames, seed=0)]
    assert sorted(order) == list(range(100))
    assert np.abs(np.array(order) - np.arange(100)).mean() > 20
    assert order == [frame.number for frame in shard_order(frames[::-1], seed=0)]
    assert order != [frame.number for frame in shard_order(frames, seed=1)]
    assert order[:5] == [45, 7, 72, 99, 6]  # the same on every machine and for every release


def test_a_prepared_data_set_is_not_overwritten_by_accident(raw, tmp_path):
    prepare(raw, tmp_path)
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"already holds a prepared data set.*--overwrite"):
        prepare(raw, tmp_path, options=ShardOptions(samples_per_shard=100))
    assert content(tmp_path) == before
    prepare(raw, tmp_path, options=ShardOptions(samples_per_shard=100), overwrite=True)
    assert sorted(content(tmp_path)) == [
        "dataset.json",
        "train/hypersim-train-000000.tar",
        "val/hypersim-val-000000.tar",
    ]


def test_options_that_shaped_the_data_are_recorded_without_paths_of_this_machine(raw, tmp_path):
    prepare(raw, tmp_path, options=ShardOptions(samples_per_shard=3, image_format="png", seed=5))
    options = json.loads((tmp_path / "dataset.json").read_text())["options"]
    assert options["samples_per_shard"] == 3 and options["seed"] == 5 and options["image_format"] == "png"
    assert options["split_csv"] == "metadata_images_split_scene_v1.csv"
    assert str(raw) not in json.dumps(options)


def test_the_summary_counts_what_was_written(raw, tmp_path):
    manifest = prepare(raw, tmp_path)
    train = manifest.statistics["train"]
    assert (train["samples"], len(manifest.splits["train"]), train["modalities"]["depth"]["share"]) == (5, 3, 1.0)
    assert train["counts"] == {"camera nominal": 5, "normals native": 5}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_frame_stops_with_its_name_and_leaves_no_dataset_json(raw, tmp_path, workers):
    copy = tmp_path / "raw"
    write_hypersim_frame(copy, number=0, size=SIZE)
    write_hypersim_frame(copy, number=1, size=SIZE, depth_meters=np.ones((3, 3), np.float16))
    with pytest.raises(InputError, match=r"frame\.0001\.depth_meters"):
        prepare(copy, tmp_path / "out", workers)
    assert not (tmp_path / "out/dataset.json").exists()


@pytest.mark.parametrize(
    ("options", "name", "size", "message"),
    [
        ({"samples_per_shard": 0}, "hypersim", SIZE, "--samples_per_shard"),
        ({"image_quality": 0}, "hypersim", SIZE, "--image_quality"),
        ({}, "my data", SIZE, "--name"),
        ({}, "hypersim", (0, 32), "--size"),
        ({}, "hypersim", (30_000, 30_000), "too large.*--size"),
    ],
)
def test_an_option_out_of_range_is_named_before_anything_is_written(raw, tmp_path, options, name, size, message):
    with pytest.raises(InputError, match=message):
        prepare_dataset(Hypersim(raw, size, name=name), tmp_path / "out", replace(ShardOptions(), **options))
    assert not (tmp_path / "out").exists()
