import math

import pytest
import torch

from datamodules.sources.folder_cameras import FolderCameras
from geometry.camera import camera_from_intrinsics, pixel_rays
from geometry.errors import InputError

SIZE = (48, 64)
NUMBERS = (60.0, 61.0, 32.5, 23.5)


def entries(matrix):
    return (matrix[0, 0].item(), matrix[1, 1].item(), matrix[0, 2].item(), matrix[1, 2].item())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "60 61 32.5 23.5"),
        ("a.txt", "60, 61, 32.5, 23.5\n"),
        ("a.txt", "60 0 32.5\n0 61 23.5\n0 0 1\n"),
        ("a.txt", "60 0 32.5 0\n0 61 23.5 0\n0 0 1 0\n0 0 0 1\n"),
        ("a.json", '{"fx": 60, "fy": 61, "cx": 32.5, "cy": 23.5, "width": 64}'),
        ("a.json", '{"K": [[60, 0, 32.5], [0, 61, 23.5], [0, 0, 1]]}'),
        ("a.json", '{"cam_in": [60, 61, 32.5, 23.5]}'),
        ("a.json", "[60, 61, 32.5, 23.5]"),
        ("a.csv", "image,fx,fy,cx,cy\nother.jpg,1,2,3,4\na.jpg,60,61,32.5,23.5\n"),
        ("a.csv", "cx,cy,image,fx,fy\n32.5,23.5,a,60,61\n"),
    ],
)
def test_common_notations_of_intrinsics_are_understood(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert entries(FolderCameras(cameras=tmp_path / name).matrix("a", SIZE)[0]) == NUMBERS
    if not name.endswith("csv"):
        assert entries(FolderCameras(cameras=tmp_path).matrix("a", SIZE)[0]) == NUMBERS


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "60 61 32.5", "3 numbers"),
        ("a.txt", "sixty", "cannot be read as intrinsics"),
        ("a.txt", "60 0.5 32.5 0 61 23.5 0 0 1", "no pinhole without skew"),
        ("a.json", '{"focal": 60}', "neither fx, fy, cx, cy nor"),
        ("a.json", "{", "cannot be read as intrinsics"),
        ("a.csv", "image,fx,fy,cx\na,1,2,3\n", "no column cy"),
        ("a.csv", "image,fx,fy,cx,cy\na,1,2,3,x\n", "row 2"),
        ("a.csv", "image,fx,fy,cx,cy\nb,60,61,32,24\n", "no row for image 'a'"),
        ("a.txt", "0 61 32.5 23.5", "focal lengths must be positive"),
        ("a.txt", "60 nan 32.5 23.5", "focal lengths must be positive"),
        ("a.txt", "1e400 61 32.5 23.5", "focal lengths must be positive"),
        ("a.json", f"[1{400 * '0'}, 61, 32.5, 23.5]", "cannot be read as intrinsics"),
        ("a.json", 10_000 * "[", "cannot be read as intrinsics"),
        ("a.json", '{"K": [[1, 2], [3]]}', "cannot be read as intrinsics"),
        ("a.txt", "600 610 325 235", r"\(325, 235\) lies outside image 'a' of 48x64"),
    ],
)
def test_intrinsics_that_cannot_be_right_are_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=rf"a\.{name[2:]}.*{message}"):
        FolderCameras(cameras=tmp_path / name).matrix("a", SIZE)


def test_an_image_without_its_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no seq/b\.txt or seq/b\.json"):
        FolderCameras(cameras=tmp_path).matrix("seq/b", SIZE)


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
def test_a_field_of_view_reaches_from_edge_to_edge(pixel_center):
    matrix, source = FolderCameras(fov_deg=90, pixel_center=pixel_center).matrix("a", SIZE)
    rays = pixel_rays(camera_from_intrinsics(matrix), *SIZE, pixel_center)
    # The outer edges lie half a pixel beyond the outermost centres.
    assert rays[0, 0, -1].item() + 0.5 / matrix[0, 0].item() == pytest.approx(math.tan(math.radians(45)))
    assert torch.allclose(rays[:2, 0, 0], -rays[:2, -1, -1])
    assert source == "fov"


@pytest.mark.parametrize("fov_deg", [0, 180, -5])
def test_an_impossible_field_of_view_is_refused(fov_deg):
    with pytest.raises(InputError, match="--fov_deg"):
        FolderCameras(fov_deg=fov_deg).check()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_with_a_byte_order_mark_is_read_as_one_without(tmp_path, end):
    (tmp_path / "a.csv").write_text(f"\ufeffimage,fx,fy,cx,cy{end}a.png,60,61,32.5,23.5{end}", newline="")
    (tmp_path / "a.json").write_text(f'\ufeff{{"K": [60, 61, 32.5, 23.5]}}{end}', newline="")
    (tmp_path / "a.txt").write_text(f"\ufeff60 61{end}32.5 23.5{end}", newline="")
    for name in ("a.csv", "a.json", "a.txt"):
        matrix, _ = FolderCameras(cameras=tmp_path / name).matrix("a", SIZE)
        assert matrix.tolist() == [[60, 0, 32.5], [0, 61, 23.5], [0, 0, 1]], name
