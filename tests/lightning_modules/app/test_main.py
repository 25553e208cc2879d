"""The web page as it is served: to programs, and to people with a browser."""

import os
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_modules.app.__main__ import COMMAND, main, start
from lightning_modules.inference import Predictor
from tests.browser import Browser, free_port, is_installed, wait_for_port
from tests.lightning_modules.inference.runs import make_run, photo

pytest.importorskip("gradio")
pytestmark = pytest.mark.filterwarnings("ignore")

ROOT = Path(__file__).parents[3]
INPUT = "#upload input[type=file]"
MESSAGES = {
    "notes.png": "notes.png is no image of a known kind",
    "large.png": "100 megapixels are too many; at most 50 are taken",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A photo, and what is none: a text, 100 megapixels, and more bytes than may be uploaded."""
    folder = tmp_path_factory.mktemp("files")
    Image.fromarray(photo()).save(folder / "photo.png")
    (folder / "notes.png").write_text("text")
    Image.new("L", (10_000, 10_000)).save(folder / "large.png")
    (folder / "heavy.png").write_bytes(bytes(3 << 20))
    return folder


@pytest.fixture(scope="module")
def url(run):
    words = ["--ckpt_path", run, "--processing-res", 256, "--port", free_port(), "--max-upload-mb", 2]
    choice = COMMAND.part.values(vars(COMMAND.parse(list(map(str, words)))))
    running = start(choice["model"], choice["page"])
    yield running.local_url
    running.close()


def test_it_listens_on_this_machine_alone_unless_told_otherwise(url):
    assert COMMAND.parse(["--pretrained", "m"]).host == "127.0.0.1"
    assert url.startswith("http://127.0.0.1:")


def test_a_program_gets_what_predict_returns_and_a_message_for_other_files(url, run, files):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(url, verbose=False)
    _, array, _, further, view, timing = client.predict(handle_file(files / "photo.png"), 256, api_name="/predict")
    assert np.array_equal(np.load(_path(array)), Predictor.load(run, processing_res=256)(photo()))
    assert Path(view).read_bytes().startswith(b"glTF") and "61 x 45 pixels" in timing
    assert {Path(_path(name)).name for name in further} >= {"photo_mesh.glb", "photo_mesh.ply", "photo_mm.png"}
    for name, message in MESSAGES.items():
        with pytest.raises(AppError, match=message):
            client.predict(handle_file(files / name), 256, api_name="/predict")
    with pytest.raises(Exception, match=r"413|[Ll]arge|exceed"):
        client.predict(handle_file(files / "heavy.png"), 256, api_name="/predict")


def ask(url, method="GET", path="/", **headers):
    """Return the status of a request with these headers alone."""
    connection = HTTPConnection(url.split("/")[2], timeout=60)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Content-Length": "0", **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    response.read()
    return response.status


def test_a_page_of_another_name_that_resolves_here_cannot_use_it(url):
    own, port = url.split("/")[2], url.rstrip("/").rsplit(":", 1)[1]
    assert ask(url, Host=own) == ask(url, Host=f"localhost:{port}") == 200
    for host in ("evil.example", f"evil.example:{port}", f"localhost.evil.example:{port}", "", f"{own},evil.example"):
        assert ask(url, Host=host) == 403, host
        assert ask(url, "POST", "/gradio_api/queue/join", Host=host, Origin=f"http://{host}") == 403


def test_another_page_in_the_same_browser_cannot_send_requests(url):
    own = url.split("/")[2]
    assert ask(url, "POST", "/gradio_api/queue/join", Host=own, Origin=f"http://{own}") == 422  # let in, and empty
    for origin in ("http://evil.example", "http://localhost:3000", "null", f"http://{own}.evil.example"):
        assert ask(url, "POST", "/gradio_api/queue/join", Host=own, Origin=origin) == 403, origin
    assert ask(url, Host=own, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors") == 403
    assert ask(url, Host=own, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate") == 200  # a link to the page


@pytest.mark.skipif(not is_installed(), reason="no Chromium with chromedriver")
def test_in_a_browser_a_photo_becomes_images_and_downloads_and_other_files_a_message(url, run, files, tmp_path):
    with Browser(tmp_path) as browser:

        def upload(name):
            browser.open(url)
            browser.wait(f"return document.querySelector('{INPUT}') !== null")
            browser.choose_file(INPUT, files / name)

        for name, message in MESSAGES.items():
            upload(name)
            browser.wait(f"return document.body.innerText.includes('{message}')")
        upload("heavy.png")
        browser.wait("return document.body.innerText.includes('exceed the maximum allowed size')")

        upload("photo.png")
        browser.wait("return document.querySelector('#timing').innerText.includes('61 x 45 pixels: read')")
        browser.wait("return document.querySelectorAll('#pictures img').length >= 2")
        browser.wait("return document.querySelector('#view canvas') !== null")
        browser.wait("return document.querySelector('#thumbnail img') !== null")
        assert len(browser.run("return [...document.querySelectorAll('#further .download')]")) == 5
        for button in ("array", "exact"):
            browser.run(f"document.querySelector('#{button}').click()")
        expected = Predictor.load(run, processing_res=256)(photo())
        assert np.array_equal(np.load(_arrived(tmp_path / "photo_depth.npy")), expected)
        assert np.abs(np.asarray(Image.open(_arrived(tmp_path / "photo_depth.png"))) / 65535 - expected).max() < 1e-4

        browser.run("document.querySelector('#examples button').click()")
        browser.wait("return document.querySelector('#timing').innerText.includes('128 x 96 pixels: read')")
        if "ONESTEP_SCREENSHOT" in os.environ:
            browser.screenshot(Path(os.environ["ONESTEP_SCREENSHOT"]))


@pytest.mark.slow
@pytest.mark.skipif(not is_installed(), reason="no Chromium with chromedriver")
def test_on_a_phone_nothing_is_cut_off_and_the_3_d_view_shows_the_image(url, tmp_path):
    with Browser(tmp_path, 400, 850) as browser:
        browser.open(url)
        browser.wait("return document.querySelector('#examples button') !== null")
        browser.run("document.querySelector('#examples button').click()")
        browser.wait("return document.querySelector('#view canvas') !== null")
        assert browser.run("return document.documentElement.scrollWidth") <= 400
        browser.run("document.querySelector('#view').scrollIntoView()")
        end = time.monotonic() + 60
        while (colours := _colours_of(browser, tmp_path / "phone.png")) < 200 and time.monotonic() < end:
            time.sleep(0.5)
        assert colours >= 200, "the view is blank"


def _colours_of(browser, file):
    """Return how many colours a screenshot of the 3-D view has; a blank one has a few."""
    browser.screenshot(file)
    x, y, width, height = browser.run(
        "const r = document.querySelector('#view canvas').getBoundingClientRect();"
        "return [r.x, r.y, r.width, r.height].map(Math.round)"
    )
    pixels = np.asarray(Image.open(file).convert("RGB"))[max(y, 0) : y + height, max(x, 0) : x + width]
    return len(np.unique(pixels.reshape(-1, 3), axis=0))


@pytest.mark.slow
def test_the_command_serves_and_says_where_and_a_taken_port_is_one_clear_line(run, tmp_path):
    port = free_port()
    command = [sys.executable, "train.py", "serve", "--ckpt_path", str(run), "--port", str(port)]
    with (tmp_path / "log.txt").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            wait_for_port(port)
            again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        finally:
            server.terminate()
            server.wait()
    assert f"http://127.0.0.1:{port}" in (tmp_path / "log.txt").read_text()
    assert again.returncode == 2 and again.stderr.startswith(f"error: cannot listen on 127.0.0.1:{port}")
    assert "Traceback" not in again.stderr


def test_mistakes_are_one_clear_line(run, capsys):
    for words, message in (
        ([], "one of --run, --ckpt_path and --pretrained is needed"),
        (["--model", "no/such/folder"], "is no checkpoint"),
        (["--ckpt_path", str(run), "--max-megapixels", "0"], "must be larger than 0"),
        (["--ckpt_path", str(run), "--processing-res", "-1"], "must not be negative"),
    ):
        with pytest.raises(SystemExit) as ended:
            sys.exit(main(words))
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
        assert message in error


def _path(file):
    return file["value"] if isinstance(file, dict) else file


def _arrived(file, timeout_s=60):
    """Return a file once the browser has downloaded it."""
    end = time.monotonic() + timeout_s
    while not file.is_file() and time.monotonic() < end:
        time.sleep(0.1)
    return file
