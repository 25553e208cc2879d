"""Loader and preparation processes compute in one thread each: with many of them, more would stand in their way."""

import json
import multiprocessing
import os

import cv2
import numpy as np
import pytest
import torch
from numcodecs import blosc
from threadpoolctl import threadpool_info

from datamodules.preparation.encoding import encode_frames
from datamodules.preparation.plan import ShardOptions
from datamodules.sources.hypersim import Hypersim
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.loading import Workers
from datamodules.streaming.order import count_streams
from datamodules.streaming.train_loader import TrainLoader
from datamodules.streaming.train_order import OpenSource, TrainOrder
from datamodules.streaming.val_loader import ValLoader
from datamodules.threads import use_one_thread
from geometry.errors import InputError
from tests.helpers.planes import make_dataset, write_hypersim_frame

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def threads():
    """How many threads each library would use here, and how many a piece of work starts in this process."""
    before = len(os.listdir("/proc/self/task"))
    values = np.random.default_rng(0).random((1500, 1500), np.float32)
    blosc.Blosc("lz4").decode(blosc.Blosc("lz4").encode(values))
    cv2.GaussianBlur(values, (9, 9), 2)
    values @ values
    torch.from_numpy(values).exp()
    started = len(os.listdir("/proc/self/task")) - before
    pools = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    return {**pools, "torch": torch.get_num_threads(), "cv2": cv2.getNumThreads(), "started": started}


def answer(*_args, **_options):
    """Do no work but tell; an error finds its way out of any process."""
    raise InputError(json.dumps(threads()))


class AskedAssembler(BatchAssembler):
    assemble = answer


class AskedHypersim(Hypersim):
    load = answer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("planes"), shards={"train": [2, 2], "val": [2]})


def loader_of(dataset, split):
    assembler, workers = AskedAssembler("planes", dataset.manifest, ("depth",)), Workers(num_workers=1)
    source = OpenSource(dataset, assembler, 1.0, split)
    if split == "val":
        return ValLoader(source, 1, None, workers)
    return TrainLoader(TrainOrder(0, (source,), count_streams([2], 8), 2, flip_probability=0.5), 1, 100, workers)


def assert_single(found):
    assert found.pop("started") == 0, found
    assert len(found) >= 4 and set(found.values()) == {1}, found


@pytest.fixture
def many_threads():
    """As on a machine with many cores, whatever the environment says."""
    before = torch.get_num_threads(), cv2.getNumThreads(), blosc.get_nthreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    blosc.set_nthreads(2)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])
    blosc.set_nthreads(before[2])


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_loader_process_uses_one_thread(dataset, split, method, many_threads, monkeypatch):
    before = multiprocessing.get_start_method()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    multiprocessing.set_start_method(method, force=True)
    loader = loader_of(dataset, split)
    try:
        with pytest.raises(InputError) as told:
            list(loader)
    finally:
        loader.close()
        multiprocessing.set_start_method(before, force=True)
    assert_single(json.loads(str(told.value)))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_preparation_uses_one_thread_per_process(tmp_path, workers, many_threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for number in range(2):
        write_hypersim_frame(tmp_path, number=number, size=(24, 32))
    raw = AskedHypersim(tmp_path, (24, 32))
    before = torch.get_num_threads(), cv2.getNumThreads(), blosc.get_nthreads(), blosc.use_threads
    for frame in encode_frames(raw, next(iter(raw.list_frames().splits.values()))[:2], ShardOptions(), workers):
        assert_single(json.loads(frame.problem))
    assert (torch.get_num_threads(), cv2.getNumThreads(), blosc.get_nthreads(), blosc.use_threads) == before


def test_more_threads_would_be_noticed(many_threads):
    found = threads()
    assert found["torch"] == found["cv2"] == 2


def test_a_process_that_is_forked_beside_busy_pools_of_threads_does_not_wait_for_them(many_threads):
    values = np.random.default_rng(0).random((1500, 1500), np.float32)

    def work():
        cv2.GaussianBlur(values, (9, 9), 2)
        blosc.Blosc("lz4").decode(blosc.Blosc("lz4").encode(values))
        torch.from_numpy(values).exp()
        return values[:64] @ values

    work()  # the pools of this process have threads now, which a child does not have
    for _ in range(8):
        child = multiprocessing.get_context("fork").Process(target=lambda: (use_one_thread(), work()), daemon=True)
        child.start()
        child.join(20)
        assert child.exitcode == 0
