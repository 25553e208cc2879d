import hashlib
import os
import shutil
import threading

import pytest

from datamodules.geometry_datamodule import DatasetSource, GeometryDataModule
from datamodules.shards.cache import cached_shard
from datamodules.shards.manifest import read_dataset
from datamodules.shards.transfer import Transfer
from geometry.errors import InputError
from tests.datamodules.web import Web
from tests.helpers.planes import make_dataset

PATIENT = Transfer(retries=2, timeout_s=10, backoff_s=0.001)


@pytest.fixture
def web(tmp_path):
    make_dataset(tmp_path / "web", shards={"train": [3, 2], "val": [2]})
    with Web(tmp_path / "web") as web:
        yield web


def open_dataset(web, tmp_path):
    return read_dataset(web.url, PATIENT, tmp_path / "cache")


def fetch(dataset, index=0):
    return cached_shard(dataset, dataset.manifest.splits["train"][index], dataset.cache_dir)


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(folder, suffix):
    return sorted(path for path in folder.rglob("*") if path.suffix == suffix)


def test_a_shard_is_fetched_once_and_then_kept(web, tmp_path):
    dataset = open_dataset(web, tmp_path)
    paths = {fetch(dataset) for _ in range(3)}
    assert len(paths) == 1 and len(web.shard_requests) == 1
    assert sha256(paths.pop()) == dataset.manifest.splits["train"][0].sha256
    assert not files(tmp_path / "cache", ".part")


def test_training_reads_every_remote_shard_once_for_many_epochs(web, tmp_path):
    data = GeometryDataModule(
        [DatasetSource(web.url)], num_workers=0, batch_size=1, cache_dir=str(tmp_path / "cache"), retries=1
    )
    data.setup("fit")
    epochs = [sorted(batch.key[0] for batch in data.train_dataloader()) for _ in range(3)]
    assert epochs == [[f"train-{i:04d}" for i in range(5)]] * 3
    assert len(web.shard_requests) == 2


def test_data_sets_with_equal_names_do_not_mix(web, tmp_path):
    # The same name and file names, other content, at another address.
    make_dataset(tmp_path / "other", shards={"train": [3]}, normals=False)
    with Web(tmp_path / "other") as other:
        one, two = open_dataset(web, tmp_path), open_dataset(other, tmp_path)
        paths = [fetch(one), fetch(two)]
    for path, dataset in zip(paths, (one, two), strict=True):
        assert sha256(path) == dataset.manifest.splits["train"][0].sha256
    assert paths[0] != paths[1] and paths[0].parent != paths[1].parent


def test_a_data_set_replaced_at_its_address_is_not_served_from_old_copies(web, tmp_path):
    old = fetch(open_dataset(web, tmp_path))
    shutil.rmtree(tmp_path / "web")
    make_dataset(tmp_path / "web", shards={"train": [4]})
    dataset = open_dataset(web, tmp_path)
    new = fetch(dataset)
    assert new != old and sha256(new) == dataset.manifest.splits["train"][0].sha256


def test_a_short_download_is_fetched_again(web, tmp_path):
    dataset = open_dataset(web, tmp_path)
    web.faults = ["short"]
    assert sha256(fetch(dataset)) == dataset.manifest.splits["train"][0].sha256


def test_a_changed_shard_is_named_and_never_kept(web, tmp_path):
    dataset = open_dataset(web, tmp_path)
    shutil.copy(tmp_path / "web/train/planes-train-000001.tar", tmp_path / "web/train/planes-train-000000.tar")
    with pytest.raises(InputError, match=r"planes-train-000000\.tar is short or was changed.*dataset\.json says"):
        fetch(dataset)
    assert not files(tmp_path / "cache", ".tar") and not files(tmp_path / "cache", ".part")


def test_a_server_that_fails_is_named_and_leaves_nothing(web, tmp_path):
    dataset = open_dataset(web, tmp_path)
    web.faults = [503] * 3
    with pytest.raises(InputError, match=r"planes-train-000000\.tar cannot be fetched: HTTP status 503"):
        fetch(dataset)
    assert not files(tmp_path / "cache", ".tar") and not files(tmp_path / "cache", ".part")


def test_what_a_killed_process_left_behind_does_no_harm(web, tmp_path):
    dataset = open_dataset(web, tmp_path)
    path = fetch(dataset)
    path.rename(path.with_suffix(".part"))
    path.with_suffix(".part").write_bytes(b"half of it")
    assert sha256(fetch(dataset)) == dataset.manifest.splits["train"][0].sha256


def test_readers_that_want_one_shard_at_once_fetch_it_once(web, tmp_path):
    dataset = open_dataset(web, tmp_path)
    threads = [threading.Thread(target=fetch, args=(dataset,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(web.shard_requests) == 1


def test_a_full_disk_is_not_blamed_on_the_network(web, tmp_path, monkeypatch):
    def refuse(file, data):
        raise OSError(28, "No space left on device")

    dataset = open_dataset(web, tmp_path)
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(InputError, match=r"cache is full.*No space left"):
        fetch(dataset)
    assert not files(tmp_path / "cache", ".part")


def test_local_data_sets_are_not_copied(tmp_path):
    make_dataset(tmp_path / "local", shards={"train": [2]})
    data = GeometryDataModule(
        [DatasetSource(str(tmp_path / "local"))], num_workers=0, batch_size=1, cache_dir=str(tmp_path / "cache")
    )
    data.setup("fit")
    assert len(list(data.train_dataloader())) == 2 and not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_is_named(web, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match=r"cache cannot be used|cannot be used.*data\.cache_dir"):
        fetch(open_dataset(web, tmp_path))
