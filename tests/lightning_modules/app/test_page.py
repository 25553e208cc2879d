"""What the web page does with a file, without a server."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from geometry.errors import InputError
from lightning_modules.app.page import EXAMPLES, Display, Page
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
    found = page.predict(str(tmp_path / "photo.png"), 48)
    (shown, colors), array, exact, view, timing = found.images, found.array, found.exact, found.view, found.remarks
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
    assert Path(page.predict(str(examples[0]), 64).array).is_file()


def test_a_name_as_long_as_file_systems_take_leaves_room_for_endings(page, tmp_path):
    file = tmp_path / ("\N{GRINNING FACE}" * 62)
    Image.fromarray(photo()).save(file, "PNG")
    found = page.predict(str(file), 48)
    assert len(found.further) == 5 and all(Path(name).is_file() for name in (found.array, found.exact, *found.further))


def test_another_way_to_show_an_image_costs_no_second_prediction(page, tmp_path):
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    colours = page.predict(str(tmp_path / "photo.png"), 48)
    grey = page.predict(str(tmp_path / "photo.png"), 48, Display(near_white=True, near_m=2, far_m=4))
    assert page.num_predictions == 1
    depth = np.load(colours.array)
    row, column = np.unravel_index(depth.argmin(), depth.shape)
    assert (grey.images[1][row, column] == 255).all() and grey.images[1].min() == 0
    assert not np.array_equal(colours.images[1], grey.images[1])
    millimetres = cv2.imread(named(grey, "mm.png"), cv2.IMREAD_UNCHANGED)
    assert np.abs(millimetres / 1000 - (2 + 2 * depth)).max() < 0.001
    page.predict(str(tmp_path / "photo.png"), 64)
    assert page.num_predictions == 2


def test_known_depths_make_metres_of_files_and_view(page, tmp_path):
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    depth = np.load(page.predict(str(tmp_path / "photo.png"), 48).array)
    metres = 5 * depth + 2
    lines = [f"{x + 0.5}, {y + 0.5}, {metres[y, x]}" for x, y in ((3, 4), (50, 8), (20, 40), (58, 41))]
    found = page.predict(str(tmp_path / "photo.png"), 48, Display(anchors="\n".join(lines)))
    assert np.abs(np.load(named(found, "depth_metres.npy")) - metres).max() < 1e-3
    assert "4 of 4 anchors used" in found.remarks and f"{metres.min():.3g} to {metres.max():.3g} m" in found.remarks
    assert np.abs(cv2.imread(named(found, "mm.png"), cv2.IMREAD_UNCHANGED) / 1000 - metres).max() < 2e-3
    for wrong in ("3 4", "a b c", "1 2 -3", "500 4 2"):
        with pytest.raises(InputError, match=r"known depths|outside the image"):
            page.predict(str(tmp_path / "photo.png"), 48, Display(anchors=wrong))


def test_the_thumbnail_is_the_image_made_small(page, tmp_path):
    Image.fromarray(photo(480, 640)).save(tmp_path / "photo.png")
    small = page.thumbnail(str(tmp_path / "photo.png"))
    assert small.shape == (240, 320, 3) and abs(small.mean() - photo(480, 640).mean()) < 1


def named(shown, ending):
    return next(name for name in shown.further if name.endswith(ending))
