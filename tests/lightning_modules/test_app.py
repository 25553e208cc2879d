"""The web page: what it shows and hands out, and what it says to files that it cannot use."""

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from geometry.errors import InputError
from lightning_modules.app import Page
from lightning_modules.inference import Predictor
from tests.lightning_modules.inference.runs import make_run, picture

pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def page(run, tmp_path):
    return Page(Predictor.load(run, processing_res=64), max_pixels=1_000_000, folder=tmp_path)


def test_downloads_are_what_predict_answers_and_the_view_is_a_surface(page, run, tmp_path):
    Image.fromarray(picture()).save(tmp_path / "photo.png")
    (shown, colors), array, exact, view, timing = page.predict(str(tmp_path / "photo.png"), 48)
    expected = Predictor.load(run, processing_res=48)(picture())
    assert np.array_equal(np.load(array), expected)
    assert np.abs(cv2.imread(exact, cv2.IMREAD_UNCHANGED) / 65535 - expected).max() < 1e-4
    assert np.array_equal(shown, picture()) and colors.shape == shown.shape
    assert "61 x 45 pixels" in timing

    content = Path(view).read_bytes()
    magic, version, length, json_length = struct.unpack("<4sIII", content[:16])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    scene = json.loads(content[20 : 20 + json_length])
    assert scene["accessors"][0]["count"] == 45 * 61
    assert -10.001 <= scene["accessors"][0]["min"][2] < scene["accessors"][0]["max"][2] <= -0.999


def test_a_file_that_is_no_picture_or_too_large_gets_a_message_without_folders_of_the_server(page, tmp_path):
    (tmp_path / "notes.png").write_text("text")
    Image.new("L", (1200, 1000)).save(tmp_path / "large.png")
    for name, message in (("notes.png", "no picture"), ("large.png", "1 megapixels are too many")):
        with pytest.raises(InputError, match=message) as caught:
            page.predict(str(tmp_path / name), 64)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match="choose a picture"):
        page.predict(None, 64)


class Browser:
    """Headless Chromium, through the WebDriver protocol."""

    def __init__(self, port):
        self.address = f"http://127.0.0.1:{port}"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,1000"]
        options = {"binary": shutil.which("chromium"), "args": flags}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.session = "/session/" + self._send("/session", wanted)["sessionId"]

    def _send(self, path, body=None, method="POST"):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self._send(self.session + "/url", {"url": url})

    def run(self, script):
        return self._send(self.session + "/execute/sync", {"script": script, "args": []})

    def wait(self, script, timeout_s=120):
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(f"never came: {script}\n" + self.run("return document.body.innerText"))

    def upload(self, file):
        element = self._send(self.session + "/element", {"using": "css selector", "value": "#upload input[type=file]"})
        identifier = next(iter(element.values()))
        self._send(f"{self.session}/element/{identifier}/value", {"text": str(file)})

    def screenshot(self, file):
        import base64

        file.write_bytes(base64.b64decode(self._send(self.session + "/screenshot", method="GET")))

    def close(self):
        self._send(self.session, method="DELETE")


def free_port():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
def test_in_a_browser_a_photo_becomes_pictures_and_downloads_and_other_files_a_message(run, tmp_path):
    pytest.importorskip("gradio")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("no Chromium with chromedriver")
    port, driver_port = free_port(), free_port()
    command = [sys.executable, "-m", "lightning_modules.app", "--ckpt_path", str(run), "--port", str(port)]
    log = (tmp_path / "log.txt").open("w")
    server = subprocess.Popen([*command, "--processing-res", "256"], cwd=ROOT, stdout=log, stderr=log)
    driver = subprocess.Popen(["chromedriver", f"--port={driver_port}"], stdout=log, stderr=log)
    browser = None
    try:
        for waited in (port, driver_port):
            wait_for(waited)
        browser = Browser(driver_port)
        browser.open(f"http://127.0.0.1:{port}")
        browser.wait("return document.querySelector('#upload input[type=file]') !== null")
        Image.fromarray(picture()).save(tmp_path / "photo.png")
        browser.upload(tmp_path / "photo.png")
        browser.wait("return document.querySelector('#timing').innerText.includes('61 x 45 pixels')")
        browser.wait("return document.querySelectorAll('#pictures img').length >= 2")
        link = browser.wait("let a = document.querySelector('#array a[href]'); return a && a.href")
        with urllib.request.urlopen(link) as answer:
            (tmp_path / "download.npy").write_bytes(answer.read())
        assert np.array_equal(np.load(tmp_path / "download.npy"), Predictor.load(run, processing_res=256)(picture()))
        browser.wait("return document.querySelector('#view canvas') !== null")
        time.sleep(2)
        if "ONESTEP_SCREENSHOT" in os.environ:
            browser.screenshot(Path(os.environ["ONESTEP_SCREENSHOT"]))

        (tmp_path / "notes.png").write_text("text")
        Image.new("L", (10_000, 10_000)).save(tmp_path / "large.png")
        for name, message in (("notes.png", "no picture"), ("large.png", "100 megapixels are too many")):
            browser.open(f"http://127.0.0.1:{port}")
            browser.wait("return document.querySelector('#upload input[type=file]') !== null")
            browser.upload(tmp_path / name)
            browser.wait(f"return document.body.innerText.includes('{message}')")
        assert "Traceback" not in (tmp_path / "log.txt").read_text()
    finally:
        if browser:
            browser.close()
        for process in (driver, server):
            process.terminate()
            process.wait()
        log.close()


def wait_for(port):
    for _ in range(600):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise AssertionError(f"nothing listens on {port}")
