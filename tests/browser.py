"""Headless Chromium, through the WebDriver protocol alone."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu"]


def is_installed():
    return bool(shutil.which("chromium") and shutil.which("chromedriver"))


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, timeout_s=120):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with contextlib.closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise AssertionError(f"nothing listens on {port}")


class Browser:
    """A window of Chromium; use it with ``with``. Downloads come into a folder; a phone is 400 pixels wide."""

    def __init__(self, downloads, width=1280, height=1000):
        self.downloads, self.size = downloads, {"width": width, "height": height}

    def __enter__(self):
        port = free_port()
        self.driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
        wait_for_port(port)
        self.address = f"http://127.0.0.1:{port}"
        options = {"binary": shutil.which("chromium"), "args": FLAGS}
        options["prefs"] = {
            "download.default_directory": str(self.downloads),
            "profile.default_content_setting_values.automatic_downloads": 1,  # more than one, too
        }
        if self.size["width"] < 500:  # narrower than a window of Chromium can be
            options["mobileEmulation"] = {"deviceMetrics": self.size | {"pixelRatio": 1, "touch": False}}
        else:
            options["args"] = [*FLAGS, f"--window-size={self.size['width']},{self.size['height']}"]
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.session = "/session/" + self._send("/session", wanted)["sessionId"]
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._send(self.session, method="DELETE")
        self.driver.terminate()
        self.driver.wait()

    def open(self, url):
        self._send(self.session + "/url", {"url": url})

    def run(self, script):
        return self._send(self.session + "/execute/sync", {"script": script, "args": []})

    def wait(self, script, timeout_s=120):
        """Run a script until it returns something that is true, and return that."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            found = self.run(script)
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"never came: {script}\n" + self.run("return document.body.innerText"))

    def choose_file(self, selector, file):
        """Give a file to an input element, as a person does who picks or drops it."""
        element = self._send(self.session + "/element", {"using": "css selector", "value": selector})
        self._send(f"{self.session}/element/{next(iter(element.values()))}/value", {"text": str(file)})

    def screenshot(self, file):
        file.write_bytes(base64.b64decode(self._send(self.session + "/screenshot", method="GET")))

    def _send(self, path, body=None, method="POST"):
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]
