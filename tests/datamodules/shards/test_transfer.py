import dataclasses
import hashlib
import time

import pytest

from datamodules.shards.manifest import read_dataset
from datamodules.shards.transfer import Transfer
from datamodules.streaming.streams import ShardReader
from geometry.errors import InputError
from tests.datamodules.web import Web
from tests.helpers.planes import make_dataset
from tests.helpers.shards import iterate_shard

PATIENT = Transfer(retries=2, timeout_s=10, backoff_s=0.001)
FILE = "train/planes-train-000000.tar"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planes")
    make_dataset(folder, shards={"train": [6, 4]}, size=(48, 64))
    return folder


@pytest.fixture
def web(folder):
    with Web(folder) as web:
        yield web


def keys(url, transfer=PATIENT, **options):
    return [sample.key for sample in iterate_shard(url, ("image", "depth"), transfer=transfer, **options)]


EXPECTED = [f"train-{i:04d}" for i in range(6)]


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("faults", [[], [503, 500], ["truncate", "truncate"], ["truncate", 429]])
def test_reading_goes_on_at_the_right_sample_after_failures(folder, ranges, faults):
    with Web(folder, ranges) as web:
        web.faults = list(faults)
        checksum = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
        assert keys(f"{web.url}/{FILE}", sha256=checksum) == EXPECTED
        assert len(web.requests) == len(faults) + 1


def test_a_resumed_download_does_not_start_anew(folder, web):
    web.faults = ["truncate"]
    assert keys(f"{web.url}/{FILE}") == EXPECTED
    assert web.requests[1][1] == f"bytes={(folder / FILE).stat().st_size // 2}-"


def test_a_stalled_download_is_given_up_and_continued(web):
    web.faults = ["stall"]
    start = time.monotonic()
    assert keys(f"{web.url}/{FILE}", Transfer(1, timeout_s=0.2, backoff_s=0.001)) == EXPECTED
    assert time.monotonic() - start < 4


def test_failures_are_counted_anew_when_bytes_arrive(web):
    web.faults = ["truncate"] * 5
    assert keys(f"{web.url}/{FILE}", Transfer(1, backoff_s=0.001)) == EXPECTED


@pytest.mark.parametrize("first", [503, "stall"])
def test_a_server_that_never_recovers_is_an_error_that_names_the_shard(web, first):
    web.faults = [first, 503, 503, 503]
    with pytest.raises(InputError, match=r"planes-train-000000\.tar cannot be read.*HTTP status 503.*3 attempts"):
        keys(f"{web.url}/{FILE}", Transfer(2, timeout_s=0.2, backoff_s=0.001))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_reported_at_once(web, status):
    web.faults = [status]
    with pytest.raises(InputError, match=f"HTTP status {status}"):
        keys(f"{web.url}/{FILE}")
    assert len(web.requests) == 1


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(web):
    web.faults = ["truncate"]
    samples = iterate_shard(f"{web.url}/{FILE}", ("image",), transfer=PATIENT)
    next(samples)
    web.tag = "two"
    with pytest.raises(InputError, match=r"000000\.tar cannot be read.*replaced while it was read"):
        list(samples)


def test_an_address_without_a_server_is_an_error_of_the_user(web):
    with Web(web) as gone:
        url = gone.url
    with pytest.raises(InputError, match="no connection"):
        read_dataset(url, PATIENT)


def test_a_shard_that_lost_its_end_unnoticed_by_http_is_named(web):
    dataset = read_dataset(web.url, PATIENT)
    shard = dataset.manifest.splits["train"][0]
    web.faults = ["short"]
    reader = ShardReader(dataset, ("image",))
    with pytest.raises(InputError, match=r"planes-train-000000\.tar"):
        for index in range(shard.samples):
            reader.read(0, shard, index)


@pytest.mark.parametrize("cached", [True, False])
def test_a_shard_and_a_list_of_shards_that_never_end_are_given_up(web, tmp_path, cached):
    web.endless = ".tar"
    dataset = read_dataset(web.url, PATIENT, str(tmp_path) if cached else None)
    shard = dataset.manifest.splits["train"][0]
    reader = ShardReader(dataset, ("image",))
    with pytest.raises(InputError, match=r"planes-train-000000\.tar"):
        for index in range(shard.samples):
            reader.read(0, shard, index)
    web.endless = ".json"
    with pytest.raises(InputError, match=r"dataset\.json .*more than 32 MiB"):
        read_dataset(web.url, PATIENT)


@pytest.mark.parametrize("root", ["http", "pipe"])
def test_another_shard_of_the_same_size_is_noticed_by_its_checksum(folder, web, root):
    dataset = read_dataset(web.url if root == "http" else f"pipe:cat {folder}/{{}}", PATIENT)
    shard = dataclasses.replace(dataset.manifest.splits["train"][0], sha256="0" * 64)
    reader = ShardReader(dataset, ("image",))
    with pytest.raises(InputError, match=r"000000\.tar cannot be read.*short or was changed.*dataset\.json says 0000"):
        for index in range(shard.samples):
            reader.read(0, shard, index)


def test_a_command_that_fails_twice_is_continued_at_the_right_byte(folder, tmp_path):
    # Prints a little more at every attempt, and all of it at the third.
    command = f"n=$(cat {tmp_path}/n 2>/dev/null | wc -l); echo >> {tmp_path}/n; "
    command += (
        f"if [ $n -ge 2 ]; then cat {folder}/{FILE}; else head -c $((9000 * (n + 1))) {folder}/{FILE}; exit 3; fi"
    )
    assert keys(f"pipe:{command}") == EXPECTED


def test_a_command_that_hangs_is_ended_with_its_children(tmp_path):
    with pytest.raises(InputError, match=r"printed nothing for 0\.1 s"):
        keys(f"pipe:(sleep 1; touch {tmp_path}/survived) | cat", Transfer(0, timeout_s=0.1))
    time.sleep(1.3)
    assert not (tmp_path / "survived").exists()


def test_a_command_that_does_not_exist_is_not_tried_again(caplog):
    with pytest.raises(InputError, match="cannot be run"):
        keys("pipe:no-such-command-anywhere 2>/dev/null")
    assert not caplog.records
