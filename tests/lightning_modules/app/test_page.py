"""What the web page does with a file, without a server."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from geometry.errors import InputError
from lightning_modules.app.page import EXAMPLES, Page
from lightning_modules.inference import Predictor
from tests.lightning_modules.inference.runs import make_run, photo

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def page(run, tmp_path):
    (tmp_path / "results").mkdir()
    return Page(Predictor.load(run, processing_res=64), max_pixels=1_000_000, folder=tmp_path / "results")


def test_downloads_are_what_predict_returns_and_the_view_is_a_surface(page, run, tmp_path):
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    (shown, colors), array, exact, view, timing = page.predict(str(tmp_path / "photo.png"), 48)
    expected = Predictor.load(run, processing_res=48)(photo())
    assert np.array_equal(np.load(array), expected)
    assert np.abs(cv2.imread(exact, cv2.IMREAD_UNCHANGED) / 65535 - expected).max() < 1e-4
    assert np.array_equal(shown, photo()) and colors.shape == shown.shape
    assert "61 x 45 pixels" in timing

    content = Path(view).read_bytes()
    magic, version, length, json_length = struct.unpack("<4sIII", content[:16])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    scene = json.loads(content[20 : 20 + json_length])
    assert scene["accessors"][0]["count"] == 45 * 61
    assert -3.001 <= scene["accessors"][0]["min"][2] < scene["accessors"][0]["max"][2] <= -0.999


def test_a_file_that_is_no_image_or_too_large_gets_a_message_without_folders_of_the_server(page, tmp_path):
    (tmp_path / "notes.png").write_text("text")
    Image.new("L", (1200, 1000)).save(tmp_path / "large.png")
    for name, message in (("notes.png", "no image"), ("large.png", "1 megapixels are too many")):
        with pytest.raises(InputError, match=message) as caught:
            page.predict(str(tmp_path / name), 64)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match="choose an image"):
        page.predict(None, 64)


def test_results_of_former_images_do_not_fill_the_disk(page, tmp_path):
    Image.fromarray(photo(8, 8)).save(tmp_path / "photo.png")
    for _ in range(25):
        page.predict(str(tmp_path / "photo.png"), 16)
    assert len(list((tmp_path / "results").iterdir())) <= 21


def test_the_examples_are_images_that_can_be_predicted(page):
    examples = sorted(EXAMPLES.glob("*.jpg"))
    assert len(examples) >= 2
    assert Path(page.predict(str(examples[0]), 64)[1]).is_file()


def test_a_name_as_long_as_file_systems_take_leaves_room_for_endings(page, tmp_path):
    file = tmp_path / ("\N{GRINNING FACE}" * 62)
    Image.fromarray(photo()).save(file, "PNG")
    _, array, exact, _, _ = page.predict(str(file), 48)
    assert Path(array).is_file() and Path(exact).is_file()
