"""Parts that several machines prepare make the same data set as one machine does."""

import json
import os
import shutil

import numpy as np
import pytest

from datamodules.preparation.merging import merge_parts
from datamodules.preparation.plan import ShardOptions
from datamodules.preparation.run import prepare_dataset
from datamodules.sources.hypersim import Hypersim
from geometry.errors import InputError
from tests.helpers.planes import write_hypersim_frame

SIZE = (24, 32)
OPTIONS = ShardOptions(samples_per_shard=2)
HEADER = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name\n"
BROKEN = {"depth_meters": np.ones((3, 3), np.float16)}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Frame 4 is broken, frame 6 is half empty."""
    folder = tmp_path_factory.mktemp("raw")
    half_empty = np.full(SIZE, 3, np.float16)
    half_empty[:14] = np.nan
    for number in range(9):
        arrays = {4: BROKEN, 6: {"depth_meters": half_empty}}.get(number, {})
        write_hypersim_frame(folder, number=number, size=SIZE, **arrays)
    rows = [f"ai_001_001,cam_00,{n},True,,{'val' if n < 2 else 'train'}\n" for n in range(9)]
    (folder / "metadata_images_split_scene_v1.csv").write_text(HEADER + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def whole(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    prepare(raw, folder)
    return content(folder)


def prepare(raw, out, workers=1, part=(1, 1), options=OPTIONS):
    return prepare_dataset(
        Hypersim(raw, SIZE), out, options, workers, False, False, lambda _: None, part=part, max_errors=1
    )


def merge(*folders):
    return merge_parts(folders, lambda _: None)


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_workers_skip_the_same_samples_as_one(raw, tmp_path, whole):
    prepare(raw, tmp_path, workers=2)
    assert content(tmp_path) == whole


def test_three_parts_in_one_folder_are_the_whole_when_the_last_is_done(raw, tmp_path, whole):
    for number in (3, 1, 2):
        assert not (tmp_path / "dataset.json").exists()
        prepare(raw, tmp_path, part=(number, 3))
    assert content(tmp_path) == whole
    prepare(raw, tmp_path, part=(1, 3))  # an array job that is queued again has nothing to do
    assert content(tmp_path) == whole


@pytest.mark.parametrize("target", ["part1", "new"])
def test_three_parts_in_three_folders_merge_to_the_whole(raw, tmp_path, whole, target):
    parts = [tmp_path / f"part{number}" for number in (1, 2, 3)]
    for number, folder in enumerate(parts, start=1):
        prepare(raw, folder, part=(number, 3))
    manifest = merge(tmp_path / target, *(part for part in parts if part.name != target))
    assert content(tmp_path / target) == whole
    assert [manifest.num_samples(split) for split in manifest.splits] == [6, 2]  # of 7 and 2
    assert len(manifest.statistics["train"]["skipped"]) == 1
    assert merge(tmp_path / target) == manifest


def test_parts_copied_into_one_folder_by_hand_are_the_whole_once_merged(raw, tmp_path, whole):
    for number in (1, 2, 3):
        prepare(raw, tmp_path / str(number), part=(number, 3))
        shutil.copytree(tmp_path / str(number), tmp_path / "all", dirs_exist_ok=True)
    merge(tmp_path / "all")
    assert content(tmp_path / "all") == whole


def test_a_part_without_a_shard_is_no_hindrance(raw, tmp_path, whole):
    parts = [tmp_path / str(number) for number in range(1, 8)]  # of 5 shards
    for number, folder in enumerate(parts, start=1):
        prepare(raw, folder, part=(number, len(parts)))
    merge(*parts)
    assert content(parts[0]) == whole


def test_a_part_that_is_not_there_is_an_error_with_the_shards_that_are_missing(raw, tmp_path):
    prepare(raw, tmp_path / "1", part=(1, 3))
    prepare(raw, tmp_path / "2", part=(2, 3))
    with pytest.raises(
        InputError, match=r"1 of 5 shards are not finished \(such as train/hypersim-train-000002\.tar\)"
    ):
        merge(tmp_path / "1", tmp_path / "2")
    assert not (tmp_path / "1/dataset.json").exists()
    with pytest.raises(InputError, match="holds no part"):
        merge(tmp_path / "1", tmp_path / "nowhere")


def test_parts_made_with_other_options_do_not_merge(raw, tmp_path):
    prepare(raw, tmp_path / "1", part=(1, 2))
    prepare(raw, tmp_path / "2", part=(2, 2), options=ShardOptions(samples_per_shard=2, seed=7))
    with pytest.raises(InputError, match="different data sets"):
        merge(tmp_path / "1", tmp_path / "2")


def test_a_part_that_changed_on_its_way_is_refused(raw, tmp_path):
    for number in (1, 2):
        prepare(raw, tmp_path / str(number), part=(number, 2))
    shard = next((tmp_path / "2").rglob("*.tar"))
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    with pytest.raises(InputError, match=rf"{shard.name} has changed"):
        merge(tmp_path / "1", tmp_path / "2")


@pytest.mark.parametrize("part", [(0, 3), (4, 3)])
def test_a_part_that_does_not_exist_is_refused(raw, tmp_path, part):
    with pytest.raises(InputError, match="1 <= I <= N"):
        prepare(raw, tmp_path / "out", part=part)
    assert not (tmp_path / "out").exists()


def test_overwriting_with_a_part_would_destroy_the_others_and_is_refused(raw, tmp_path):
    with pytest.raises(InputError, match="--overwrite would remove"):
        prepare_dataset(Hypersim(raw, SIZE), tmp_path, OPTIONS, overwrite=True, part=(1, 2))


class TestWhatLiesInAPart:
    """Of folders that came from other machines, or from other people."""

    @pytest.fixture
    def parts(self, raw, tmp_path):
        for number in (1, 2):
            prepare(raw, tmp_path / str(number), part=(number, 2))
        return tmp_path / "1", tmp_path / "2"

    def test_a_finished_data_set_does_not_swallow_parts_of_another(self, raw, whole, tmp_path):
        prepare(raw, tmp_path / "whole")
        prepare(raw, tmp_path / "1", part=(1, 2), options=ShardOptions(samples_per_shard=2, seed=7))
        with pytest.raises(InputError, match=r"complete data set already, and .* holds parts of another one"):
            merge(tmp_path / "whole", tmp_path / "1")

    def test_one_part_twice_is_not_the_whole(self, parts):
        with pytest.raises(InputError, match="are not finished"):
            merge(parts[0], parts[0])

    @pytest.mark.parametrize("kind", ["pipe", "folder", "devzero", "cut"])
    def test_a_shard_that_is_something_else_counts_as_missing(self, parts, kind):
        shard = next((parts[1] / "train").glob("*.tar"))
        data = shard.read_bytes()
        shard.unlink()
        if kind == "cut":
            shard.write_bytes(data[:3000])
        else:
            make = {"pipe": os.mkfifo, "folder": os.mkdir, "devzero": lambda path: os.symlink("/dev/zero", path)}
            make[kind](shard)
        with pytest.raises(InputError, match=f"such as train/{shard.name}"):
            merge(*parts)

    def test_a_shard_that_is_a_link_is_taken_as_the_file_that_it_names(self, parts, whole):
        shard = next((parts[1] / "train").glob("*.tar"))
        shard.rename(parts[1] / "elsewhere.tar")
        shard.symlink_to("../elsewhere.tar")
        merge(*parts)
        assert content(parts[0]) == whole
        assert not any(path.is_symlink() for path in parts[0].rglob("*"))

    @pytest.fixture
    def note(self, parts):
        return parts[0] / "train/hypersim-train-000000.json"

    @pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, '{"shards": 1, "statistics": 2, "info": 3}', "{}"])
    def test_notes_that_are_damaged_are_named(self, parts, note, text):
        note.write_text(text)
        with pytest.raises(InputError, match=r"hypersim-train-000000\.json is damaged"):
            merge(*parts)

    @pytest.mark.parametrize("counts", [{"train": 10**12}, {"../..": 1}, {"train": -1}, {"train": "4"}, {}, [4]])
    def test_notes_of_an_impossible_number_of_shards_are_named(self, parts, note, counts):
        note.write_text(json.dumps({**json.loads(note.read_text()), "shards": counts}))
        with pytest.raises(InputError, match=r"hypersim-train-000000\.json is damaged"):
            merge(*parts)

    def test_a_pipe_in_place_of_a_note_keeps_nobody_waiting(self, parts, note):
        note.unlink()
        os.mkfifo(note)
        with pytest.raises(InputError, match="no regular file"):
            merge(*parts)

    def test_notes_name_no_file_but_the_one_beside_them(self, parts, note):
        note.write_text(note.read_text().replace("train/hypersim-train-000000.tar", "../../evil.tar"))
        with pytest.raises(InputError, match=r"000000\.json is damaged \(it is about another shard"):
            merge(*parts)

    def test_what_an_earlier_version_left_unfinished_is_not_passed_over(self, parts):
        (parts[1] / "preparation").mkdir()
        (parts[1] / "preparation/plan.json").write_text("{}")
        with pytest.raises(InputError, match=r"2 holds an unfinished preparation of an earlier version"):
            merge(*parts)
