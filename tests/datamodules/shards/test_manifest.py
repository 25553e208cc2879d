import json
import os

import pytest

from datamodules.shards import manifest
from datamodules.shards.manifest import read_dataset
from geometry.errors import InputError
from tests.helpers.planes import make_dataset


@pytest.fixture
def folder(tmp_path):
    make_dataset(tmp_path)
    return tmp_path


def change(folder, **fields):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_prepared_folder_is_described_fully(folder):
    dataset = read_dataset(folder)
    assert dataset.manifest.num_samples("train") == 7
    assert dataset.manifest.image_size == (12, 16)
    assert dataset.manifest.ranges["depth"][1] == 65.0


def test_a_trailing_slash_makes_no_difference(folder):
    assert read_dataset(f"{folder}/").root == read_dataset(folder).root


def test_a_folder_without_dataset_json_is_named_with_a_remedy(tmp_path):
    with pytest.raises(InputError, match=r"holds no dataset\.json.*onestep prepare"):
        read_dataset(tmp_path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder"):
        read_dataset(tmp_path / "nowhere")


def test_a_data_set_can_come_from_a_command(folder):
    dataset = read_dataset(f"pipe:cat {folder}/{{}}")
    assert dataset.shard_url(dataset.manifest.splits["val"][0]) == f"pipe:cat {folder}/val/planes-val-000000.tar"


def test_a_command_that_fails_is_an_error_of_the_user(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_dataset(f"pipe:cat {tmp_path}/{{}} 2>/dev/null")


@pytest.mark.parametrize(
    "file", ["pipe:touch owned", "../x.tar", "/etc/passwd", "a/../../x.tar", "http://x/y.tar", "a;b"]
)
def test_a_shard_name_that_leaves_the_folder_or_runs_a_command_is_refused(folder, file):
    change(folder, splits={"train": [{"file": file, "samples": 1, "sha256": "0" * 64}]})
    with pytest.raises(InputError, match="no shard of this folder"):
        read_dataset(folder)


@pytest.mark.parametrize(
    "fields",
    [
        {"format_version": 2},
        {"units": "mm"},
        {"frame": "x right, y down, z forward"},
        {"image_size": [480]},
        {"image_size": ["480", "640"]},
        {"near_plane_m": 70},
        {"far_plane_m": None},
        {"entries": ["image"]},
        {"entries": ["image", "depth", "pickle"]},
        {"splits": None},
        {"name": "a b"},
        {"name": "n" * 10 + "\x1b[2J"},
        {"entries": [["image"], "depth"]},
        {"entries": [{}, "image", "depth"]},
        {"entries": ["image", "depth", "depth"]},
        {"far_plane_m": 10**400},
        {"far_plane_m": float("nan")},
        {"far_plane_m": True},
        {"image_size": [30_000, 30_000]},
        {"image_size": [10**1000, 1]},
        {"image_size": [True, 16]},
        {"splits": {"\x1b[2J": []}},
        {"splits": {"train": [None]}},
        {"splits": {"train": [{"file": "a" * 5000, "samples": 1, "sha256": "0" * 64}]}},
        {"splits": {"train": [{"file": "a.tar", "samples": 10**30, "sha256": "0" * 64}]}},
    ],
)
def test_a_field_that_would_change_the_meaning_of_the_data_is_refused(folder, fields):
    change(folder, **fields)
    with pytest.raises(InputError, match=r"dataset\.json: ") as caught:
        read_dataset(folder)
    assert len(str(caught.value)) < 1000 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    "fields",
    [
        {"splits": {"train": [1] * 20_000}},
        {"splits": {"train": [{"file": 1}] * 20_000}},
        {"splits": {"train": [{str(number): 1 for number in range(20_000)}]}},
        {"splits": {f"{number}/": 1 for number in range(20_000)}},
        {"format_version": 2, "ranges": {}, "entries": [1] * 20_000},
        {"format_version": 2, "ranges": {str(number): 1 for number in range(20_000)}},
    ],
)
def test_of_thousands_of_mistakes_only_the_first_takes_memory(folder, fields):
    change(folder, **fields)
    with pytest.raises(InputError, match=r"dataset\.json: ") as caught:
        read_dataset(folder)
    assert caught.value.__context__.error_count() <= 3


@pytest.mark.parametrize("content", ["[]", "3", "null", '"planes"', "{}"])
def test_a_dataset_json_of_the_wrong_shape_is_refused_with_its_name(folder, content):
    (folder / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_dataset(folder)


def test_a_cut_off_dataset_json_is_named(folder):
    path = folder / "dataset.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(InputError, match="no valid JSON"):
        read_dataset(folder)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "[" + "9" * 5000 + "]", "\ud800", '"\\ud800"'])
def test_a_text_that_no_parser_likes_is_refused_with_its_name(folder, text):
    (folder / "dataset.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_dataset(folder)


def test_a_byte_order_mark_is_no_error(folder):
    path = folder / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_dataset(folder).manifest.name == "planes"


def test_a_dataset_json_that_is_no_regular_file_is_refused_at_once(folder):
    path = folder / "dataset.json"
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), lambda: path.mkdir()):
        path.unlink()
        make()
        with pytest.raises(InputError, match="no regular file"):
            read_dataset(folder)


@pytest.mark.parametrize("command", ["cat /dev/zero #", "yes '[' #"])
def test_a_dataset_json_without_end_is_refused_early(command):
    with pytest.raises(InputError, match="more than 32 MiB"):
        read_dataset(f"pipe:{command} {{}}")


def test_a_dataset_json_that_drips_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(manifest, "MAX_MANIFEST_SECONDS", 0.2)
    with pytest.raises(InputError, match="no end after"):
        read_dataset("pipe:while printf ' '; do sleep 0.05; done # {}")
