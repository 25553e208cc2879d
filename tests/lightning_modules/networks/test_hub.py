"""Bases from the hub: a server on this machine that speaks as much of the hub's language as downloads need."""

import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants as hub
import pytest
import torch
from safetensors.torch import load_file, save_file

from geometry.errors import InputError
from lightning_modules import StableDiffusion
from lightning_modules.networks.stable_diffusion.base_check import check_base
from tests.helpers.tiny import build_base

COMMIT = "a" * 40


class Hub:
    """Serves a folder as the model lab/depth, and remembers what was asked for."""

    def __init__(self, folder):
        self.folder, self.gets = folder, []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                owner.answer(self, with_body=False)

            def do_GET(self):
                owner.answer(self, with_body=True)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def body(self, path):
        files = [file for file in self.folder.rglob("*") if file.is_file()]
        if path.startswith("/api/models/lab/depth"):
            names = [{"rfilename": file.relative_to(self.folder).as_posix()} for file in files]
            if "/tree/" in path:
                tree = [
                    {"type": "file", "path": name["rfilename"], "oid": "0", "size": file.stat().st_size}
                    for name, file in zip(names, files, strict=True)
                ]
                return json.dumps(tree).encode()
            return json.dumps({"id": "lab/depth", "sha": COMMIT, "siblings": names, "private": False}).encode()
        name = path.split("/resolve/")[-1].split("/", 1)[-1]
        file = self.folder / name
        return file.read_bytes() if path.startswith("/lab/depth/resolve/") and file.is_file() else None

    def answer(self, handler, with_body):
        path = handler.path.split("?")[0]
        body = self.body(path)
        if with_body and "/resolve/" in path:
            self.gets.append(path.split("/", 5)[-1])
        handler.send_response(404 if body is None else 200)
        if body is None:
            handler.send_header("X-Error-Code", "EntryNotFound" if "lab/depth" in path else "RepoNotFound")
        else:
            handler.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("Content-Length", str(len(body or b"")))
        handler.end_headers()
        if with_body:
            handler.wfile.write(body or b"")


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = Hub(build_base(tmp_path / "served"))
    threading.Thread(target=server.server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr(hub, "ENDPOINT", server.url)
    monkeypatch.setattr(
        hub, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}", raising=False
    )
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_a_base_is_fetched_once_and_only_what_it_needs(server):
    unet = server.folder / "unet/diffusion_pytorch_model.safetensors"
    save_file({name: w.half() for name, w in load_file(unet).items()}, unet.with_suffix(".fp16.safetensors"))
    (server.folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (server.folder / "image.png").write_bytes(b"png")
    network = StableDiffusion("lab/depth")
    assert torch.equal(network.state_dict()["unet.conv_in.bias"], load_file(unet)["conv_in.bias"])
    assert sum(name.endswith(".safetensors") for name in server.gets) == 3
    assert not any("fp16" in name or name.endswith((".bin", ".png")) for name in server.gets)
    server.gets.clear()
    StableDiffusion("lab/depth")
    assert server.gets == []


def test_a_base_that_cannot_be_used_is_refused_before_its_weights_are_fetched(server):
    file = server.folder / "unet/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"class_embed_type": "timestep"}))
    with pytest.raises(InputError, match=r"the hub's model lab/depth .*class_embed_type"):
        check_base("lab/depth")
    assert server.gets and not any(name.endswith(".safetensors") for name in server.gets)


def test_weights_in_half_precision_alone_are_fetched(server):
    for file in server.folder.rglob("*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert {check_base("lab/depth").weights(part).variant for part in ("unet", "vae", "text_encoder")} == {"fp16"}


def test_what_is_in_the_cache_in_part_is_completed(server):
    check_base("lab/depth")
    for folder in (check_base("lab/depth").folder / part for part in ("tokenizer", "vae")):
        shutil.rmtree(folder)
    assert (check_base("lab/depth").folder / "tokenizer/tokenizer.json").is_file()


def test_offline_a_cached_base_is_taken_and_what_it_lacks_is_named(server, monkeypatch):
    check_base("lab/depth")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    base = check_base("lab/depth")
    shutil.rmtree(base.folder / "tokenizer")
    with pytest.raises(InputError, match=r"lab/depth .*no more can be fetched.* has no tokenizer/tokenizer_config"):
        check_base("lab/depth")


def test_a_model_that_the_hub_does_not_know_and_one_of_another_layout_are_told_apart(server):
    with pytest.raises(InputError, match=r"no folder lab/other,.*the hub knows no such model"):
        check_base("lab/other")
    shutil.rmtree(server.folder / "unet")
    with pytest.raises(InputError, match=r"has no unet/config.json; it is not in the diffusers layout"):
        check_base("lab/depth")
