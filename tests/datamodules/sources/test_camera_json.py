"""Files of cameras are read as their programs write them, and faults are known before the first sample."""

import json

import numpy as np
import pytest
from PIL import Image

from datamodules.prepare import main
from datamodules.sources.folder_cameras import FolderCameras, read_intrinsics_file
from datamodules.sources.hypersim_frames import find_table
from geometry.errors import InputError

NUMBERS = (60.0, 61.0, 32.5, 23.5)
OPEN3D = [60, 0, 0, 0, 61, 0, 32.5, 23.5, 1]
REALSENSE = {
    "width": 64,
    "height": 48,
    "ppx": 32.5,
    "ppy": 23.5,
    "fx": 60,
    "fy": 61,
    "model": "brown",
    "coeffs": [0] * 5,
}
NERFSTUDIO = {"fl_x": 60, "fl_y": 61, "cx": 32.5, "cy": 23.5}
OTHER = {"fx": 1, "fy": 2, "cx": 3, "cy": 4}


@pytest.mark.parametrize(
    "document",
    [
        REALSENSE,
        {"width": 64, "height": 48, "intrinsic_matrix": OPEN3D},
        {"parameters": [{"class_name": "PinholeCameraParameters", "intrinsic": {"intrinsic_matrix": OPEN3D}}]},
        {"intrinsic_matrix": [[60, 0, 32.5], [0, 61, 23.5], [0, 0, 1]]},
        {"K": [[60, 0, 0], [0, 61, 0], [32.5, 23.5, 1]]},
        {"color": {"intrinsics": REALSENSE}, "depth": {"intrinsics": OTHER}},
        {"camera": {"intrinsics": {"K": [60, 0, 32.5, 0, 61, 23.5, 0, 0, 1]}}},
        {"seq/a.jpg": NERFSTUDIO, "seq/b.jpg": OTHER},
        {"a.png": {"K": [60, 61, 32.5, 23.5]}, "b.png": OTHER},
        {"frames": [{"file_path": "./images/seq/b.jpg", **OTHER}, {"file_path": "images/a.jpg", **NERFSTUDIO}]},
        {**NERFSTUDIO, "frames": [{"file_path": "images/a.jpg", "transform_matrix": [[1.0]]}]},
        [{"file_name": "a.jpg", "cam_in": [60, 61, 32.5, 23.5]}, {"file_name": "b.jpg", "cam_in": [1, 2, 3, 4]}],
    ],
)
def test_the_notations_of_cameras_and_programs_give_the_same_numbers(tmp_path, document):
    (tmp_path / "c.json").write_text(json.dumps(document))
    cameras = FolderCameras(cameras=tmp_path / "c.json")
    cameras.check()
    matrix, _ = cameras.matrix("seq/a", (48, 64))
    assert (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]) == NUMBERS


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"left": OTHER, "right": REALSENSE}, r"several cameras \(left, right\)"),
        ({"b.jpg": OTHER, "c.jpg": OTHER}, "cameras of .* images, and none of image 'a'"),
        ({"intrinsic_matrix": [60, 1, 0, 0, 61, 0, 32.5, 23.5, 1]}, "no pinhole without skew"),
        ({"model": "brown"}, "fx, fy, ppx, ppy"),
    ],
)
def test_what_is_ambiguous_or_missing_is_said_and_not_guessed(tmp_path, document, message):
    (tmp_path / "c.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"c\.json cannot be read as intrinsics \(.*{message}"):
        read_intrinsics_file(tmp_path / "c.json", "a")


def frames(folder, number=3, suffix="jpg"):
    for name in ("image", "depth"):
        (folder / name).mkdir()
    for index in range(number):
        Image.new("RGB", (64, 48), (index, 90, 40)).save(folder / f"image/{index}.{suffix}")
        np.save(folder / f"depth/{index}.npy", np.full((48, 64), 2.0, np.float32))
    return ["folder", "--images", str(folder / "image"), "--depth", str(folder / "depth"), "--out", str(folder / "out")]


@pytest.mark.parametrize(("name", "text"), [("c.json", "{"), ("c.txt", "60 61"), ("c.csv", "image,fx\n")])
def test_a_fault_of_the_common_file_is_known_before_any_sample_is_read(tmp_path, capsys, name, text):
    words = [*frames(tmp_path), "--cameras", str(tmp_path / name)]
    (tmp_path / name).write_text(text)
    assert main([*words, "--workers", "1"]) == 2
    assert name in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_photos_that_are_not_read_are_counted_and_named(tmp_path, capsys):
    words = frames(tmp_path)
    for name in ("y.CR2", "z.dng"):
        (tmp_path / "image" / name).write_bytes(b"II*\0")
    assert main([*words, "--workers", "1", "--quiet"]) == 0
    assert "Not read: 2 HEIC or RAW photo(s) (y.CR2, z.dng); y.CR2 is a RAW photo" in capsys.readouterr().out


def test_hypersims_tables_are_looked_for_in_the_raw_folder_and_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "data/raw"
    raw.mkdir(parents=True)
    assert find_table(None, raw, "t.csv") is None
    (tmp_path / "data/t.csv").touch()
    assert find_table(None, raw, "t.csv") == tmp_path / "data/t.csv"
    (raw / "t.csv").touch()
    from pathlib import Path

    assert find_table(Path("t.csv"), raw, "t.csv") == find_table(None, raw, "t.csv") == raw / "t.csv"
    assert find_table(tmp_path / "t.csv", raw, "t.csv") == tmp_path / "t.csv"  # is not there, and is not replaced
