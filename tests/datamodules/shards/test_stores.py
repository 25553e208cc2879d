"""Data sets in stores that fsspec opens, against a server on this machine that answers as S3 and Google Cloud do."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from fsspec.registry import known_implementations

from datamodules.geometry_datamodule import DatasetSource, GeometryDataModule
from datamodules.shards.manifest import read_dataset
from datamodules.shards.transfer import Transfer
from geometry.errors import InputError
from tests.helpers.planes import make_dataset
from tests.helpers.shards import iterate_shard

PATIENT = Transfer(retries=2, timeout_s=10, backoff_s=0.001)
FILE = "train/planes-train-000000.tar"
EXPECTED = [f"train-{i:04d}" for i in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planes")
    make_dataset(folder, shards={"train": [6, 4]}, size=(48, 64))
    return folder


@pytest.fixture
def memory(folder):
    system = fsspec.filesystem("memory")
    system.put(str(folder), "/planes", recursive=True)
    yield system
    system.rm("/planes", recursive=True)


class Store(BaseHTTPRequestHandler):
    """Files of ``bucket`` by the interfaces of S3 and of Google Cloud Storage."""

    protocol_version = "HTTP/1.1"
    folder = None

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        address, _, query = self.path.partition("?")
        name = unquote(address.rpartition("/b/bucket/o/")[2] if "/b/bucket/o" in address else address[8:])
        file = self.folder / name
        if not name or not file.is_file():
            self.reply(404, b"")
        elif address.startswith("/storage/v1/") and "alt=media" not in query:
            said = {"name": name, "bucket": "bucket", "size": str(file.stat().st_size), "etag": "one"}
            self.reply(200, json.dumps(said).encode(), "application/json")
        else:
            wanted = self.headers.get("Range")
            data, (first, last) = file.read_bytes(), wanted[6:].split("-") if wanted else ("0", "")
            self.reply(206 if wanted else 200, data[int(first) : int(last) + 1 if last else None])

    def reply(self, status, body, kind="application/octet-stream"):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "ETag": '"one"', "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def store(folder, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("PlanesStore", (Store,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    yield address
    server.shutdown()
    server.server_close()


def keys(dataset):
    shard = dataset.manifest.splits["train"][0]
    found = iterate_shard(dataset.shard_url(shard), ("image", "depth"), transfer=PATIENT, sha256=shard.sha256)
    return [sample.key for sample in found]


@pytest.mark.slow  # their libraries take seconds to import
@pytest.mark.parametrize("root", ["s3://bucket", "gs://bucket"])
def test_a_data_set_in_a_store_is_read_and_verified(store, root):
    assert keys(read_dataset(root, PATIENT)) == EXPECTED
    with pytest.raises(InputError, match=r"dataset\.json cannot be read \(there is no such file"):
        read_dataset(f"{root}/elsewhere", PATIENT)


def test_loader_processes_read_a_store_after_the_trainer_has_read_it(folder, tmp_path):
    data = GeometryDataModule([DatasetSource(f"file://{folder}")], num_workers=2, batch_size=1, cache_dir=str(tmp_path))
    data.setup("fit")
    try:
        epoch = sorted(batch.key[0] for batch in data.train_dataloader())
    finally:
        data.teardown("fit")
    assert epoch == [f"train-{i:04d}" for i in range(10)] and len(list(tmp_path.rglob("*.tar"))) == 2


class Breaking(MemoryFileSystem):
    """Breaks off after a few thousand bytes, as often as it is told to, with an error of its own."""

    protocol = "breaking"
    failures = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("breaking://", "memory://"))

    def _open(self, path, mode="rb", **options):
        return _BreakingFile(self, path, super()._open(path, mode, **options).getvalue())


class _BreakingFile(MemoryFile):
    def read(self, size=-1):
        if self.tell() > 9000 and Breaking.failures:
            Breaking.failures -= 1
            raise RuntimeError("the store\nwas lost")
        return super().read(min(size, 5000))


@pytest.mark.parametrize(("failures", "retries"), [(0, 0), (2, 2), (3, 2)])
def test_a_store_that_breaks_off_is_asked_again_for_the_rest(memory, monkeypatch, failures, retries):
    fsspec.register_implementation("breaking", Breaking, clobber=True)
    monkeypatch.setattr(Breaking, "failures", failures)
    patience = Transfer(retries, backoff_s=0.001)
    samples = iterate_shard(f"breaking://planes/{FILE}", ("image",), transfer=patience)
    if failures > retries:
        with pytest.raises(InputError, match=r"RuntimeError: the store was lost \(at byte 10000, after 3 attempts"):
            list(samples)
    else:
        assert [sample.key for sample in samples] == EXPECTED


def test_a_shard_in_a_store_that_was_changed_is_named(memory):
    dataset = read_dataset("memory://planes", PATIENT)
    data = bytearray(memory.cat_file(f"/planes/{FILE}"))
    data[-2000] ^= 1
    memory.pipe_file(f"/planes/{FILE}", bytes(data))
    with pytest.raises(InputError, match=r"000000\.tar cannot be read.*its sha256 is .*dataset\.json says"):
        keys(dataset)


def test_a_store_without_its_package_says_what_to_install(monkeypatch):
    lacking = {"class": "no_such_package.Store", "err": "Install no_such_package to access it"}
    monkeypatch.setitem(known_implementations, "lacking", lacking)
    with pytest.raises(InputError, match=r"^[^\n]*cannot be opened \(Install no_such.*\[remote\].*pipe:aws[^\n]*$"):
        read_dataset("lacking://bucket/data", PATIENT)
    with pytest.raises(InputError, match=r"cannot be opened \(Protocol not known: nowhere\); name a command"):
        read_dataset("nowhere://bucket/data", PATIENT)
