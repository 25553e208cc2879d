import io
import itertools
import multiprocessing
import os
import pickle
import re
import signal
import tarfile
import time
import warnings
from collections import Counter

import pytest
import torch

from datamodules.shards.codecs import DECODERS
from datamodules.shards.files import EncodedSample, write_shard
from datamodules.streaming import buffers
from datamodules.streaming.batches import BatchAssembler
from datamodules.streaming.loading import Receiver, Workers
from datamodules.streaming.order import count_streams
from datamodules.streaming.train_loader import TrainLoader
from datamodules.streaming.train_order import OpenSource, TrainOrder
from geometry.errors import InputError
from geometry.torch_internals import shared_storage
from tests.helpers.planes import encode_plane, make_dataset
from tests.helpers.tiny import tensors_of

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


BOTH = ("depth", "normals")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    sizes = {"a": [5, 4, 6, 5], "b": [3, 2, 4, 3, 1]}
    return [make_dataset(tmp_path_factory.mktemp(name), name, {"train": shards}) for name, shards in sizes.items()]


@pytest.fixture(scope="module")
def even(tmp_path_factory):
    """8 samples in two shards, so that an epoch on two streams ends for both at once."""
    return make_dataset(tmp_path_factory.mktemp("even"), "even", {"train": [4, 4]})


def loader_of(
    datasets,
    batch_size=2,
    rank=0,
    world_size=1,
    num_workers=0,
    per_epoch=10_000,
    seed=0,
    block_size=3,
    max_bad_samples=0,
    timeout_s=0,
):
    sources = tuple(
        OpenSource(
            dataset, BatchAssembler(dataset.manifest.name, dataset.manifest, ("depth", "normals")), weight, "train"
        )
        for dataset, weight in zip(datasets, (3.0, 1.0), strict=False)
    )
    num_streams = count_streams([len(source.shards) for source in sources], 48)
    order = TrainOrder(seed, sources, num_streams, block_size, flip_probability=0.5)
    workers = Workers(rank, world_size, num_workers, timeout_s=timeout_s, max_bad_samples=max_bad_samples)
    return TrainLoader(order, batch_size, per_epoch, workers)


def take(loader, count):
    return list(itertools.islice(iter(loader), count))


def assert_same(batches, expected):
    assert [batch.key for batch in batches] == [batch.key for batch in expected]
    assert [batch.dataset.name for batch in batches] == [batch.dataset.name for batch in expected]
    for batch, other in zip(batches, expected, strict=True):
        expected_tensors = tensors_of(other)
        assert tensors_of(batch).keys() == expected_tensors.keys() >= {"image", "camera", "depth", "normals_mask"}
        for name, tensor in tensors_of(batch).items():
            assert torch.equal(tensor, expected_tensors[name]), name


def keys_of(batches):
    return [key for batch in batches for key in batch.key]


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_number_of_workers_changes_neither_order_nor_flips(datasets, num_workers):
    assert_same(take(loader_of(datasets, num_workers=num_workers), 25), take(loader_of(datasets), 25))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("cut", [1, 4, 13, 20])
def test_a_resumed_run_gets_the_batches_that_the_killed_one_would_have_got(datasets, cut, num_workers):
    whole = take(loader_of(datasets), 26)
    killed, resumed = loader_of(datasets, num_workers=num_workers), loader_of(datasets, num_workers=num_workers)
    take(killed, cut)
    resumed.load_state_dict(killed.state_dict())
    assert_same(take(resumed, 26 - cut), whole[cut:])


def test_the_state_counts_batches_handed_out_and_not_those_prefetched(datasets):
    loader = loader_of(datasets, num_workers=2)
    take(loader, 3)
    time.sleep(0.2)
    assert loader.state_dict()["micro_step"] == 3


def test_a_run_resumed_twice_is_still_exact(datasets):
    state, batches = None, []
    for count in (3, 4, 5):
        loader = loader_of(datasets)
        if state:
            loader.load_state_dict(state)
        batches += take(loader, count)
        state = loader.state_dict()
    assert state["micro_step"] == 12
    assert len(state["history"]) == 1
    assert_same(batches, take(loader_of(datasets), 12))


def test_the_next_epoch_of_the_trainer_goes_on_where_the_last_one_ended(datasets):
    loader = loader_of(datasets, per_epoch=4)
    assert len(loader) == 4
    assert_same([*loader, *loader, *loader], take(loader_of(datasets), 12))


def test_an_epoch_that_the_trainer_cuts_short_loses_nothing(datasets):
    loader = loader_of(datasets, per_epoch=10)
    assert_same(take(loader, 3) + take(loader, 5), take(loader_of(datasets), 8))


def test_closing_a_loader_ends_its_processes_and_loses_nothing(datasets):
    loader = loader_of(datasets, num_workers=2)
    first = take(loader, 3)
    kept = loader._stream  # as a traceback does
    workers = kept._workers
    loader.close()
    assert not any(worker.is_alive() for worker in workers)
    assert_same(first + take(loader, 3), take(loader_of(datasets), 6))


@pytest.mark.parametrize(("world_size", "steps"), [(2, 4), (4, 2), (8, 1)])
def test_ranks_see_disjoint_samples_that_make_up_an_epoch(even, world_size, steps):
    ranks = [take(loader_of([even], 1, rank, world_size), 2 * steps) for rank in range(world_size)]
    for epoch in range(2):
        seen = [key for batches in ranks for key in keys_of(batches[epoch * steps : (epoch + 1) * steps])]
        assert sorted(seen) == [f"train-{i:04d}" for i in range(8)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_sample_of_an_epoch_comes_once_whatever_the_numbers_of_shards_and_streams(datasets, num_workers):
    seen = {"a": [], "b": []}
    for batch in take(loader_of(datasets, num_workers=num_workers), 60):
        seen[batch.dataset.name] += batch.key
    for name, size in (("a", 20), ("b", 13)):
        assert len(seen[name]) > 2 * size
        for start in range(0, len(seen[name]), size):
            part = seen[name][start : start + size]
            assert len(set(part)) == len(part), "a sample came twice before others came once"


# What version 0.1.0 handed out after the seventh step, and the state that it saved then.
OLD_STATE = {
    "micro_step": 7,
    "history": [{"micro_steps": 7, "world_size": 1, "batch_size": 2}],
    "order": "a40d99041c9e3401",
}
OLD_BATCHES = "a:11,10 a:00,04 b:00,02 a:19,16 b:12,11 b:07,08 a:09,11 b:03,04 a:09,12 a:03,00 a:10,14 a:17,15".split()
OLD_BATCHES_OF_RANK_1 = "a:11,10,09 a:09,11,10 b:12,11,11 a:14,13,12 b:10,09,00 b:00,02,01".split()


def names_of(batches):
    return [f"{batch.dataset.name}:{','.join(key[-2:] for key in batch.key)}" for batch in batches]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_of_an_earlier_version_goes_on_in_its_order_for_good(datasets, num_workers):
    old = loader_of(datasets, num_workers=num_workers)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "This DataLoader will create")
        old.load_state_dict(OLD_STATE)
    assert names_of(take(old, 5)) == OLD_BATCHES[:5]
    later = loader_of(datasets)
    later.load_state_dict(old.state_dict())
    assert names_of(take(later, 7)) == OLD_BATCHES[5:]


def test_a_run_of_an_earlier_version_keeps_its_order_on_other_ranks(datasets):
    old = loader_of(datasets, batch_size=3, rank=1, world_size=2)
    old.load_state_dict(OLD_STATE)
    assert names_of(take(old, 6)) == OLD_BATCHES_OF_RANK_1


def test_a_run_of_an_order_that_is_not_known_yet_is_refused(datasets):
    loader = loader_of(datasets)
    with pytest.raises(InputError, match="order number 3"):
        loader.load_state_dict({**loader.state_dict(), "order_version": 3})


def test_all_ranks_read_from_the_same_source_in_the_same_step(datasets):
    names = [
        [batch.dataset.name for batch in take(loader_of(datasets, rank=rank, world_size=3), 20)] for rank in range(3)
    ]
    assert names[0] == names[1] == names[2]
    assert set(names[0]) == {"a", "b"}


def test_workers_on_two_ranks_read_what_one_process_per_rank_would(datasets):
    for rank in range(2):
        workers = loader_of(datasets, rank=rank, world_size=2, num_workers=2)
        assert_same(take(workers, 9), take(loader_of(datasets, rank=rank, world_size=2), 9))


def test_the_state_is_the_same_on_every_rank(datasets):
    loaders = [loader_of(datasets, rank=rank, world_size=2) for rank in range(2)]
    for loader in loaders:
        take(loader, 5)
    assert loaders[0].state_dict() == loaders[1].state_dict()


def test_going_on_with_more_ranks_and_other_workers_loses_and_repeats_no_sample_and_says_what_changes(even, caplog):
    alone = loader_of([even], 1, num_workers=3)
    seen = keys_of(take(alone, 4))
    for rank in range(2):
        loader = loader_of([even], 1, rank, 2, num_workers=1)
        with caplog.at_level("INFO"):
            loader.load_state_dict(alone.state_dict())
        seen += keys_of(take(loader, 2))
    assert sorted(seen) == [f"train-{i:04d}" for i in range(8)]
    assert "continuing with 2 ranks x 1 samples after 1 x 1" in caplog.text
    assert "Not preserved: which samples meet in a batch" in caplog.text


def test_going_on_with_larger_batches_loses_and_repeats_no_sample(even):
    small, large = loader_of([even], 1), loader_of([even], 2)
    seen = keys_of(take(small, 4))
    large.load_state_dict(small.state_dict())
    assert sorted(seen + keys_of(take(large, 2))) == [f"train-{i:04d}" for i in range(8)]


def test_batches_span_the_seam_of_epochs_without_dropping_a_sample(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": [3]})
    keys = keys_of(take(loader_of([dataset], batch_size=2), 6))
    for epoch in range(4):
        assert sorted(keys[3 * epoch : 3 * epoch + 3]) == ["train-0000", "train-0001", "train-0002"]


def test_every_source_is_read_whole_as_often_as_its_weight_says(datasets):
    batches = take(loader_of(datasets), 400)
    counts = Counter((batch.dataset.name, key) for batch in batches for key in batch.key)
    share = sum(batch.dataset.name == "a" for batch in batches) / len(batches)
    assert share == pytest.approx(0.75, abs=0.06)
    for name, size in (("a", 20), ("b", 13)):
        times = [count for (source, _), count in counts.items() if source == name]
        assert len(times) == size
        assert max(times) - min(times) <= 4


def test_flips_change_from_epoch_to_epoch_but_not_from_run_to_run(even):
    images = [batch.targets["normals"].values[:, 0, 0, 0].sign() for batch in take(loader_of([even], 8), 20)]
    signs = torch.stack(images)
    assert 0.3 < (signs < 0).float().mean() < 0.7
    assert torch.equal(
        signs, torch.stack([b.targets["normals"].values[:, 0, 0, 0].sign() for b in take(loader_of([even], 8), 20)])
    )


def test_changed_data_are_noticed_on_resume(datasets):
    loader, other = loader_of(datasets), loader_of(datasets, seed=1)
    with pytest.warns(UserWarning, match="not those of the checkpoint"):
        other.load_state_dict(loader.state_dict())


def make_poisoned(folder, entries, position=0):
    """A data set on one stream, read in stored order, with one sample that cannot be used."""
    dataset = make_dataset(folder, shards={"train": [8]})
    samples = [encode_plane(f"train-{i:04d}") for i in range(8)]
    samples[position] = EncodedSample(samples[position].key, "", {**samples[position].entries, **entries})
    write_shard(folder, "train/planes-train-000000.tar", samples)
    return dataset


def test_skipping_decodes_nothing(tmp_path):
    dataset = make_poisoned(tmp_path, {"image.png": b"poison", "depth.blosc": b"poison"})
    resumed = loader_of([dataset], batch_size=1, block_size=1)
    resumed.load_state_dict({**resumed.state_dict(), "micro_step": 1, "history": [ONE_STEP]})
    assert keys_of(take(resumed, 7)) == [f"train-{i:04d}" for i in range(1, 8)]
    with pytest.raises(InputError):
        take(loader_of([dataset], batch_size=1, block_size=1), 1)


ONE_STEP = {"micro_steps": 1, "world_size": 1, "batch_size": 1}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_sample_stops_training_with_one_line_that_names_it(tmp_path, num_workers):
    dataset = make_poisoned(tmp_path, {"image.png": b"poison"}, position=3)
    loader = loader_of([dataset], batch_size=1, block_size=1, num_workers=num_workers)
    with pytest.raises(InputError) as caught:
        take(loader, 8)
    message = str(caught.value)
    assert "planes-train-000000.tar: sample 'train-0003', entry 'image.png'" in message
    assert "\n" not in message and "Traceback" not in message
    assert loader.state_dict()["micro_step"] == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_truncated_shard_stops_training_with_its_name(tmp_path, num_workers):
    dataset = make_dataset(tmp_path, shards={"train": [8]})
    shard = tmp_path / "train/planes-train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:9000])
    with pytest.raises(InputError, match=r"planes-train-000000\.tar"):
        take(loader_of([dataset], num_workers=num_workers), 8)


def test_a_shard_cut_between_two_samples_is_noticed(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": [8]})
    write_shard(tmp_path, "train/planes-train-000000.tar", [encode_plane(f"train-{i:04d}") for i in range(5)])
    with pytest.raises(InputError, match=r"only 5 samples, dataset\.json lists 8"):
        take(loader_of([dataset]), 8)


def members_of(folder):
    with tarfile.open(folder / "train/planes-train-000000.tar") as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def replace_members(folder, members):
    with tarfile.open(folder / "train/planes-train-000000.tar", "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def add(name, data=b"{}"):
    """Put a member behind the image of sample 3."""
    return lambda members: [
        each for member in members for each in ([member, (name, data)] if "0003.image" in member[0] else [member])
    ]


HOSTILE = {
    "a pickle": (add("train-0003.pickle", pickle.dumps(1)), "unknown kind 'pickle'"),
    "an absolute name": (add("/etc/train-0003.json"), "'/etc/train-0003.json' is no sample's entry"),
    "a name that climbs": (add("../train-0003.json"), r"'\.\./train-0003.json' is no sample's entry"),
    "a missing member": (lambda members: [m for m in members if m[0] != "train-0003.depth.blosc"], "has no depth"),
    "a doubled member": (add("train-0003.image.png", b""), "'image.png' twice"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_sample_is_skipped_and_all_others_come_as_before(tmp_path, name):
    change, message = HOSTILE[name]
    dataset = make_dataset(tmp_path, shards={"train": [8]})
    expected = take(loader_of([dataset], batch_size=1), 8)
    replace_members(tmp_path, change(members_of(tmp_path)))
    with pytest.warns(UserWarning, match=f"skipped bad sample number 1: .*000000.tar.*{message}"):
        batches = take(loader_of([dataset], batch_size=1, max_bad_samples=1), 8)
    assert keys_of(batches) == keys_of(expected)
    for batch, other in zip(batches, expected, strict=True):
        if batch.key == ["train-0003"]:
            assert not batch.targets["depth"].mask.any()
        else:
            assert_same([batch], [other])


def cut(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize("spoil", [cut, lambda data: bytes(1 << 20)], ids=["cut off", "zeros"])
def test_what_lies_beyond_the_damage_of_a_shard_is_skipped_and_counted_up_to_the_limit(tmp_path, spoil):
    dataset = make_dataset(tmp_path, shards={"train": [8]})
    shard = tmp_path / "train/planes-train-000000.tar"
    shard.write_bytes(spoil(shard.read_bytes()))
    loader = loader_of([dataset], batch_size=1, block_size=1, max_bad_samples=10)
    with pytest.warns(UserWarning, match=r"000000\.tar"):
        batches = take(loader, 8)
    good = [bool(batch.targets["depth"].mask.any()) for batch in batches]
    assert good == sorted(good, reverse=True) and not good[-1]
    resumed = loader_of([dataset], batch_size=1, block_size=1, max_bad_samples=10)
    resumed.load_state_dict({**resumed.state_dict(), "micro_step": 6, "history": [{**ONE_STEP, "micro_steps": 6}]})
    with pytest.warns(UserWarning):
        assert torch.equal(take(resumed, 2)[1].targets["depth"].mask, batches[7].targets["depth"].mask)


def test_every_sample_of_a_lost_rest_is_counted_and_named_and_once_only(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": [8]})
    shard = tmp_path / "train/planes-train-000000.tar"
    shard.write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        take(loader_of([dataset], batch_size=1, max_bad_samples=8), 24)
    named = sorted(re.search(r"sample number \d of 8 is lost: shard .*000000\.tar", str(w.message))[0] for w in caught)
    assert len(named) == len(set(named)) == 8
    with pytest.raises(InputError, match=r"bad sample number 8; data\.max_bad_samples is 7"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        take(loader_of([dataset], batch_size=1, max_bad_samples=7), 8)


def test_a_shard_of_another_data_set_loses_as_many_samples_as_it_was_to_hold(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": [4, 4]})
    write_shard(
        tmp_path, "train/planes-train-000000.tar", [encode_plane(f"other-{i}", size=(24, 32)) for i in range(4)]
    )
    with pytest.warns(UserWarning, match="has the shape") as caught:
        batches = take(loader_of([dataset], batch_size=1, max_bad_samples=4), 8)
    assert len(caught) == 4
    assert sum(bool(batch.targets["depth"].mask.any()) for batch in batches) == 4


@pytest.mark.parametrize("error", [TypeError("what?"), MemoryError(), RecursionError("deep")])
def test_a_sample_is_skipped_whatever_its_decoder_raises_and_the_log_keeps_where(tmp_path, monkeypatch, caplog, error):
    def raise_it(data):
        raise error

    dataset = make_dataset(tmp_path, shards={"train": [2]})
    monkeypatch.setitem(DECODERS, "png", raise_it)
    kind = type(error).__name__
    with caplog.at_level("INFO"), pytest.warns(UserWarning, match=f"entry 'image.png' cannot be decoded .{kind}"):
        batches = take(loader_of([dataset], batch_size=2, max_bad_samples=2), 1)
    assert not batches[0].targets["depth"].mask.any()
    assert "raise_it" in caplog.text, "the traceback"


def test_a_gigabyte_of_zeros_in_a_shard_is_skipped_unread(tmp_path, monkeypatch):
    dataset = make_dataset(tmp_path, shards={"train": [8]})
    expected = take(loader_of([dataset], batch_size=1), 8)
    shard, members = tmp_path / "train/planes-train-000000.tar", members_of(tmp_path)
    with open(shard, "wb") as stream:
        for name, data in members:
            info = tarfile.TarInfo(name)
            is_huge = name == "train-0003.depth.blosc"
            info.size = 1 << 30 if is_huge else len(data)
            stream.write(info.tobuf())
            end = stream.tell() + info.size
            stream.write(b"" if is_huge else data)
            stream.seek(-(-end // 512) * 512)
        stream.truncate(stream.tell() + 1024)
    assert shard.stat().st_size > 1 << 30 > 1024 * shard.stat().st_blocks, "a hole in the file"
    with pytest.warns(UserWarning, match=r"000000\.tar.*train-0003.*1073741824 bytes"):
        batches = take(loader_of([dataset], batch_size=1, max_bad_samples=1), 8)
    assert keys_of(batches) == keys_of(expected)


def test_one_bad_sample_too_many_ends_training(tmp_path):
    dataset = make_dataset(tmp_path, shards={"train": [8]})
    replace_members(tmp_path, [(name, b"" if "depth" in name else data) for name, data in members_of(tmp_path)])
    with pytest.raises(InputError, match=r"bad sample number 4; data\.max_bad_samples is 3"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        take(loader_of([dataset], max_bad_samples=3), 8)
    twice = make_poisoned(tmp_path / "twice", {"image.png": b""}, position=3)
    with pytest.warns(UserWarning) as caught:
        take(loader_of([twice], batch_size=1, max_bad_samples=1), 32)
    assert len(caught) == 1, "the same sample counts once"


def stop_worker(loader, number):
    take(loader, 1)
    os.kill(loader._stream._workers[0].pid, number)


def train_until_an_error(datasets):
    """Kill a loader process; the exit status is 0 if training ends with an error that says so."""
    try:
        loader = loader_of(datasets, num_workers=1, timeout_s=60)
        stop_worker(loader, signal.SIGKILL)
        take(loader, 50)
    except (InputError, RuntimeError) as error:
        os._exit(0 if re.search("DataLoader worker|no batch came from the loader processes", str(error)) else 1)
    os._exit(1)


def test_a_loader_process_that_dies_ends_training(datasets):
    # In a process of its own: PyTorch raises from a signal handler, wherever the trainer is by then.
    trainer = multiprocessing.get_context("fork").Process(target=train_until_an_error, args=(datasets,))
    trainer.start()
    trainer.join(100)
    assert trainer.exitcode == 0


def leave_in_the_middle(datasets):
    take(loader_of(datasets, num_workers=2), 1)


def test_a_process_that_leaves_in_the_middle_does_not_wait_for_its_loader_processes(datasets):
    trainer = multiprocessing.get_context("fork").Process(target=leave_in_the_middle, args=(datasets,))
    trainer.start()
    trainer.join(100)
    assert trainer.exitcode == 0


def test_a_loader_process_that_is_stuck_ends_training_in_time(datasets, monkeypatch):
    monkeypatch.setattr(BatchAssembler, "assemble", lambda *_: time.sleep(1000))
    with pytest.raises(InputError, match=r"timed out after 0\.3 seconds"):
        take(loader_of(datasets, num_workers=1, timeout_s=0.3), 1)


def test_full_shared_memory_is_named_with_what_a_container_needs(datasets, monkeypatch):
    monkeypatch.setattr(buffers, "shared_storage", lambda _: shared_storage(1 << 50))
    with pytest.raises(InputError, match=r"^no shared memory .*--ipc=host.*data\.num_workers"):
        take(loader_of(datasets, num_workers=1), 1)


def test_loader_processes_work_on_when_a_scheduler_signals_the_whole_job(datasets):
    loader = loader_of(datasets, num_workers=1, timeout_s=60)
    for number in (signal.SIGUSR1, signal.SIGTERM):
        stop_worker(loader, number)
    assert len(take(loader, 20)) == 20


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), InputError),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error."), InputError),
        (RuntimeError("Caught RuntimeError in DataLoader worker process 0."), RuntimeError),
        (ConnectionResetError(104, "Connection reset by peer"), InputError),
        (EOFError(), InputError),
        (ConnectionResetError("Caught ConnectionResetError in DataLoader worker process 0."), ConnectionResetError),
        (RuntimeError("shapes differ"), RuntimeError),
    ],
)
def test_the_end_of_a_loader_process_is_told_from_an_error_within_it(error, kind):
    def batches():
        raise error
        yield

    with pytest.raises(kind) as caught:
        Receiver(max_bad_samples=0).next(batches())
    assert caught.type is kind
