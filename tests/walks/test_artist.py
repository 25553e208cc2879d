"""An artist with photos runs the demo, makes meshes and greys of the photos, and uses the page, also on a phone."""

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser, is_installed

pytestmark = pytest.mark.slow

INPUT = "#upload input[type=file]"


def test_an_artist_with_photos(terminal, tmp_path):
    rows, columns = np.mgrid[0:150, 0:200]
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.stack([rows, columns, rows + columns], -1).clip(0, 255).astype(np.uint8)).save(photos / "a.png")
    (photos / "phone.dng").write_bytes(b"raw")
    printed = terminal.onestep("fit", "--config", "demo", "--trainer.max_steps=5", "--data.rooms=20")
    assert printed[-1].split()[0] == "rooms", printed[-3:]

    words = ("predict", "photos", "--run", "runs/demo", "--output", "depth", "--near_white", "--mesh")
    printed = terminal.onestep(*words, status=1)  # the RAW photo is named, and does not stop the others
    assert printed[-1].startswith("1 predicted, 1 failed; depth in depth, seen at 96 pixels"), printed
    grey = cv2.imread(str(tmp_path / "depth/a_near_white.png"), cv2.IMREAD_UNCHANGED)
    depth = np.load(tmp_path / "depth/a_depth.npy")
    assert (grey.dtype, grey.min(), grey.max()) == (np.uint16, 0, 65535)
    assert grey[np.unravel_index(depth.argmin(), depth.shape)] == 65535
    assert (tmp_path / "depth/a_mesh.glb").read_bytes()[:4] == b"glTF"
    assert b"element face" in (tmp_path / "depth/a_mesh.ply").read_bytes()[:400]

    if not is_installed():
        pytest.skip("no Chromium with chromedriver: the page was not looked at")
    with terminal.page("--run", "runs/demo") as address:
        for width in (1280, 400):
            use_page(address, width, photos / "a.png", tmp_path)


def use_page(address, width, photo, folder):
    """Upload a photo, look at what comes, and let grey take the place of colours without another prediction."""
    with Browser(folder, width, 850) as browser:
        browser.open(address)
        browser.wait(f"return document.querySelector('{INPUT}') !== null")
        browser.choose_file(INPUT, photo)
        timing = browser.wait(
            "const t = document.querySelector('#timing').innerText; return t.includes('200 x 150 pixels: read') && t"
        )
        browser.wait("return document.querySelector('#thumbnail img') !== null")
        browser.wait("return document.querySelector('#view canvas') !== null")
        assert browser.run("return document.documentElement.scrollWidth") <= width
        colours = browser.wait("return [...document.querySelectorAll('#pictures img')].map(i => i.src).join()")
        browser.run("document.querySelector('#display button').click()")
        browser.wait("return document.querySelectorAll('#style input').length === 2")
        browser.run("document.querySelectorAll('#style input')[1].click()")
        browser.wait(
            "const s = [...document.querySelectorAll('#pictures img')].map(i => i.src).join();"
            f"return s !== '' && s !== {colours!r}"
        )
        again = browser.wait(
            "const t = document.querySelector('#timing').innerText; return t.includes('200 x 150 pixels: read') && t"
        )
        assert again.split(", written")[0] == timing.split(", written")[0]  # the same prediction, and its times
        browser.screenshot(folder / f"page_{width}.png")
