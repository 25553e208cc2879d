"""Files that people ask for of a depth, and what they get for a model or an image of another kind."""

import struct

import cv2
import numpy as np
import pytest
from PIL import Image

import train
from tests.lightning_modules.inference.runs import make_run, photo

pytestmark = pytest.mark.filterwarnings("ignore")


def test_near_is_white_millimetres_span_the_range_and_the_mesh_has_faces_but_none_across_edges(tmp_path):
    run = make_run(tmp_path)
    Image.fromarray(photo()).save(tmp_path / "a.png")
    words = f"predict {tmp_path}/a.png --run {run} --output {tmp_path}/out --processing-res 32 --quiet"
    train.main([*words.split(), "--near-white", "--millimetres", "--mesh", "--near-m", "2", "--far-m", "8"])
    depth = np.load(tmp_path / "out/a_depth.npy")
    white = cv2.imread(str(tmp_path / "out/a_near_white.png"), cv2.IMREAD_UNCHANGED)
    assert white.dtype == np.uint16 and white.min() == 0 and white.max() == 65535
    assert white.reshape(-1)[depth.argmin()] == 65535
    metric = cv2.imread(str(tmp_path / "out/a_mm.png"), cv2.IMREAD_UNCHANGED)
    assert np.abs(metric - (2 + 6 * depth) * 1000).max() <= 1

    content = (tmp_path / "out/a_mesh.ply").read_bytes()
    head, body = content.split(b"end_header\n", 1)
    vertices, faces = (int(line.split()[-1]) for line in head.split(b"\n") if line.startswith(b"element"))
    assert vertices == 45 * 61 and 0 < faces <= 2 * 44 * 60
    points = np.frombuffer(body, [("xyz", "<f4", 3), ("rgb", "u1", 3)], vertices)["xyz"]
    corners = np.frombuffer(body, [("n", "u1"), ("at", "<u4", 3)], faces, vertices * 15)
    assert (corners["n"] == 3).all() and corners["at"].max() < vertices
    distance = -points[corners["at"], 2]
    assert (distance.max(axis=1) / distance.min(axis=1)).max() < 1.0601
    magic, _, length = struct.unpack("<4sII", (tmp_path / "out/a_mesh.glb").read_bytes()[:12])
    assert magic == b"glTF" and length == (tmp_path / "out/a_mesh.glb").stat().st_size
