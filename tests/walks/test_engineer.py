"""An engineer with RGB-D images of a RealSense trains on them, and hands the model over as ONNX."""

import json
import re

import cv2
import numpy as np
import pytest

from tests.helpers.planes import plane_depth, rays_of
from tests.walks.conftest import SMALL

pytestmark = pytest.mark.slow

SIZE = (64, 96)
CAMERA = {"color": {"fx": 80.0, "fy": 80.0, "ppx": 47.5, "ppy": 31.5, "model": "none", "coeffs": [0] * 5}}


def record(folder):
    """Write ten frames as a camera does: colour as JPEG, depth in millimetres, the camera as JSON."""
    camera = np.diag([1, -1, -1]) @ np.linalg.inv(np.array([[80.0, 0, 47.5], [0, 80, 31.5], [0, 0, 1]]))
    depth = np.rint(1000 * plane_depth(rays_of(camera, *SIZE, 0.0))).astype(np.uint16)
    generator = np.random.default_rng(0)
    for kind in ("image", "depth"):
        (folder / kind).mkdir(parents=True)
    for number in range(10):
        cv2.imwrite(str(folder / f"image/{number}.jpg"), generator.integers(0, 255, (*SIZE, 3), np.uint8))
        cv2.imwrite(str(folder / f"depth/{number}.png"), depth)
    (folder / "camera.json").write_text(json.dumps(CAMERA))


def test_an_engineer_with_images_of_a_depth_camera(terminal):
    mine = terminal.folder / "mine"
    record(mine)
    folders = ("--images", "mine/image", "--depth", "mine/depth", "--depth_scale", 1000, "--far", 10)
    held_out = ("--cameras", "mine/camera.json", "--val_fraction", 0.3, "--name", "mine", "--output", "shards/mine")
    terminal.onestep("prepare", "folder", *folders, *held_out)
    terminal.onestep("prepare", "check", "shards/mine")
    data = ("--data.init_args.datasets", "[{path: shards/mine}]", "--data.init_args.val_datasets", "null")
    printed = terminal.onestep("fit", "--config", "depth_stable_diffusion", "--name", "mine", *data, *SMALL)
    assert printed[-1].split()[0] == "mine", printed[-3:]

    words = ("predict", "mine/image/0.jpg", "--run", "runs/mine", "--output", "depth")
    printed = terminal.onestep(*words)
    assert printed[-1].startswith("1 predicted, 0 failed; depth in depth, seen at 96 pixels"), printed
    relative = np.load(terminal.folder / "depth/0_depth.npy")
    assert relative.shape == SIZE
    metres = 1.5 + 2 * relative  # two points of a tape measure
    places = [np.unravel_index(place, SIZE) for place in (relative.argmin(), relative.argmax())]
    lines = [f"0.jpg,{column + 0.5},{row + 0.5},{metres[row, column]}" for row, column in places]
    (terminal.folder / "anchors.csv").write_text("\n".join(["image,x,y,metres", *lines]))
    printed = terminal.onestep(*words, "--anchors", "anchors.csv")
    assert any("2 of 2 anchors used" in line for line in printed), printed
    assert np.abs(np.load(terminal.folder / "depth/0_depth_metres.npy") - metres).max() < 1e-3

    terminal.onestep("export", "--run", "runs/mine", "--format", "onnx", "--output", "onnx")
    card = (terminal.folder / "onnx/README.md").read_text()
    (code,) = re.findall("```python\n(.*?)```", card, re.DOTALL)
    (terminal.folder / "onnx/photo.jpg").write_bytes((mine / "image/0.jpg").read_bytes())
    terminal.python(code, terminal.folder / "onnx")
    assert np.abs(np.load(terminal.folder / "onnx/depth.npy")[0] - relative).max() < 1e-3
