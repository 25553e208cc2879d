import subprocess
import sys

import cv2
import numpy as np
import pytest

from datamodules.prepare import main
from datamodules.shards.manifest import read_dataset
from geometry.files.locks import sole_use
from tests.helpers.planes import make_dataset, write_hypersim_frame, write_virtual_kitti_frame


def test_hypersim_from_raw_frames_to_a_checked_data_set(tmp_path, capsys):
    for number in range(3):
        write_hypersim_frame(tmp_path / "raw", number=number)
    command = ["hypersim", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--size", "24", "32"]
    assert main([*command, "--workers", "1", "--samples_per_shard", "2", "--quiet"]) == 0
    text = capsys.readouterr().out
    assert "every frame goes to train" in text and "nominal 60 degree pinhole" in text
    assert "train  3        2" in text
    assert read_dataset(tmp_path / "out").manifest.image_size == (24, 32)
    assert main(["check", str(tmp_path / "out"), "--quiet"]) == 0


def test_virtual_kitti_from_raw_frames_to_a_checked_data_set(tmp_path, capsys):
    for scene in ("Scene01", "Scene02"):
        write_virtual_kitti_frame(tmp_path / "raw", scene)
    command = ["virtual_kitti", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--crop", "32", "96"]
    assert main([*command, "--workers", "1", "--quiet"]) == 0
    manifest = read_dataset(tmp_path / "out").manifest
    assert (manifest.num_samples("train"), manifest.num_samples("val"), manifest.ranges["depth"][1]) == (1, 1, 80.0)
    assert main(["check", str(tmp_path / "out"), "--quiet"]) == 0


def test_a_mistake_is_one_line_and_status_2(tmp_path):
    result = subprocess.run(
        [
            sys.executable,
            "train.py",
            "prepare",
            "hypersim",
            "--raw",
            str(tmp_path),
            "--out",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("wrong", [["--val_scenes", "Scene1"], ["--conditions", "fog", "mist"], ["--cameras", "2"]])
def test_parts_of_virtual_kitti_that_do_not_exist_are_one_line(tmp_path, capsys, wrong):
    write_virtual_kitti_frame(tmp_path / "raw", "Scene01")
    with pytest.raises(SystemExit) as ended:
        main(["virtual_kitti", "--raw", f"{tmp_path}/raw", "--out", f"{tmp_path}/out", "--crop", "32", "96", *wrong])
    told = capsys.readouterr().err
    assert (
        ended.value.code == 2
        and wrong[0].strip("-").replace("-", "_") in told
        and told.startswith("error: ")
        and told.count("\n") == 1
    )


@pytest.mark.parametrize("command", [["check", "{}"], ["preview", "{}", "--out", "{}/sheet.png"]])
def test_a_folder_without_dataset_json_is_status_2(tmp_path, capsys, command):
    assert main([word.format(tmp_path) for word in command]) == 2
    assert "dataset.json" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["hypersim", "virtual_kitti", "check", "preview"])
def test_every_command_has_help(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert "--" in capsys.readouterr().out


def test_check_fails_for_a_shard_that_changed_by_one_bit(tmp_path, capsys):
    make_dataset(tmp_path)
    shard = tmp_path / "train/planes-train-000001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    assert main(["check", str(tmp_path), "--quiet"]) == 1
    captured = capsys.readouterr()
    assert "planes-train-000001.tar: sha256" in captured.err
    assert "problems" in captured.out


def test_preview_shows_image_depth_and_normals_side_by_side(tmp_path, capsys):
    make_dataset(tmp_path / "data", size=(30, 40))
    assert main(["preview", str(tmp_path / "data"), "--out", str(tmp_path / "sheet.png"), "--samples", "2"]) == 0
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    rows, label = 4, 22
    assert sheet.shape == (rows * (300 + label), 3 * 400, 3)
    image, depth, normals = (sheet[label : label + 300, 400 * i : 400 * (i + 1)].astype(int) for i in range(3))
    assert image[:, -20:].mean() > image[:, :20].mean() + 100
    assert np.ptp(depth.mean(axis=2)) > 60
    # A constant normal of (0.5, 0.3, 0.81) is one colour: more red than green, much blue (OpenCV reads BGR).
    blue, green, red = normals.mean(axis=(0, 1))
    assert blue > red > green and normals.std(axis=(0, 1)).max() < 2


def test_preview_on_a_full_disk_leaves_the_image_that_was_there(tmp_path, capsys, monkeypatch):
    make_dataset(tmp_path)
    (tmp_path / "sheet.png").write_bytes(b"before")

    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geometry.files.writing.os.replace", fill)
    before = sorted(file.name for file in tmp_path.iterdir())
    assert main(["preview", str(tmp_path), "--out", str(tmp_path / "sheet.png")]) == 2
    assert (tmp_path / "sheet.png").read_bytes() == b"before"
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_preview_refuses_a_file_it_cannot_write(tmp_path, capsys):
    make_dataset(tmp_path)
    assert main(["preview", str(tmp_path), "--out", str(tmp_path / "sheet.gif")]) == 2
    assert ".png or .jpg" in capsys.readouterr().err


def test_a_path_with_a_tilde_means_the_home_folder_where_no_shell_expands_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_hypersim_frame(tmp_path / "raw")
    words = ["hypersim", "--raw=~/raw", "--out=~/out", "--size", "24", "32", "--workers", "1", "--quiet"]
    assert main(words) == 0
    assert (tmp_path / "out/dataset.json").is_file()
    assert main(["check", "~/out", "--quiet"]) == 0
    with pytest.raises(SystemExit) as ended:
        main([*words, "--camera_csv", "~nobody-of-that-name/cameras.csv"])
    assert ended.value.code == 2 and "no such user" in capsys.readouterr().err


def test_a_name_with_control_codes_is_printed_escaped(tmp_path, capsys):
    for kind in ("image", "depth"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "a\x1b[2J\nerror: b.png").write_text("no image")
    words = ["folder", "--images", tmp_path / "image", "--depth", tmp_path / "depth", "--depth_scale", "1000"]
    assert (
        main([*map(str, words), "--out", str(tmp_path / "out"), "--size", "8", "8", "--workers", "1", "--quiet"]) == 2
    )
    error = capsys.readouterr().err
    assert r"a\x1b[2J\nerror: b.png" in error and "\x1b" not in error and error.count("\n") == 1


def test_a_second_preparation_into_the_same_folder_is_refused_at_once_and_other_parts_are_not(tmp_path, capsys):
    write_hypersim_frame(tmp_path / "raw")
    command = ["hypersim", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--size", "24", "32"]
    with sole_use(tmp_path / "out", ".part-1-of-1.lock"):
        assert main([*command, "--workers", "1", "--quiet"]) == 2
        assert "in use by process" in capsys.readouterr().err
        assert main([*command, "--workers", "1", "--quiet", "--part", "2/2"]) == 0
