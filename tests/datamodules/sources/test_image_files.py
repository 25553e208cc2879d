"""Images of raw data sets are what predict sees."""

import cv2
import numpy as np
import pytest
from PIL import Image

from datamodules.sources.image_files import read_image, read_png
from geometry.errors import InputError
from geometry.files.images import open_image, rgb_of
from tests.geometry.files.test_images import encoded, png_claiming

NOISE = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)


def as_predict(path):
    with open_image(path) as image:
        return rgb_of(image)


def see_through(hidden):
    """An image whose left half is transparent, with a colour that nobody sees there."""
    image = np.dstack([NOISE, np.full((20, 30), 255, np.uint8)])
    image[:, :15] = (*hidden, 0)
    image[:5, 15:, 3] = 128
    return Image.fromarray(image)


@pytest.mark.parametrize("hidden", [(0, 0, 0), (240, 30, 10)])
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_what_is_transparent_lies_on_white_whatever_colour_is_hidden_there(tmp_path, name, hidden):
    see_through(hidden).save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    image = read_image(tmp_path / name)
    assert (image[:, :15] == 255).all() and np.array_equal(image[5:, 15:], NOISE[5:, 15:])
    assert np.abs(image[:5, 15:].astype(int) - (NOISE[:5, 15:].astype(int) + 255) / 2).max() <= 1.5
    assert np.array_equal(image, as_predict(tmp_path / name))


@pytest.mark.parametrize("mode", ["LA", "P"])
def test_so_does_transparent_grey_and_a_transparent_entry_of_a_palette(tmp_path, mode):
    if mode == "P":
        Image.fromarray(NOISE).convert("P").save(tmp_path / "a.png", transparency=0)
    else:
        see_through((9, 9, 9)).convert("LA").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), as_predict(tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.bmp"])
def test_opaque_images_are_the_pixels_that_opencv_decodes(tmp_path, name):
    Image.fromarray(NOISE).save(tmp_path / name)
    expected = cv2.cvtColor(cv2.imread(str(tmp_path / name)), cv2.COLOR_BGR2RGB)
    assert np.array_equal(read_image(tmp_path / name), expected)


def test_a_damaged_jpeg_and_a_bomb_are_refused_by_name(tmp_path):
    data = bytearray(encoded(quality=95))
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(2000)
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "b.png").write_bytes(png_claiming(30_000, 30_000))
    (tmp_path / "c.png").write_bytes(encoded())
    with pytest.raises(InputError, match=r"a\.jpg is a damaged JPEG"):
        read_image(tmp_path / "a.jpg")
    for read in (read_image, lambda path: read_png(path, cv2.IMREAD_UNCHANGED)):
        with pytest.raises(InputError, match=r"b\.png has more than 178 megapixels"):
            read(tmp_path / "b.png")
    with pytest.raises(InputError, match=r"c\.png cannot be read: it is no PNG"):
        read_png(tmp_path / "c.png", cv2.IMREAD_UNCHANGED)
