import io
import pickle
import tarfile

import pytest
import webdataset

from datamodules.shards.files import EncodedSample, decode_sample, write_shard
from geometry.errors import InputError
from tests.helpers.planes import encode_plane
from tests.helpers.shards import iterate_shard

ROLES = ("image", "depth", "normals")


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.fixture
def shard(tmp_path):
    write_shard(tmp_path, "a.tar", [encode_plane(f"k{i}") for i in range(3)])
    return tmp_path / "a.tar"


def test_what_was_written_is_read_in_order(shard):
    samples = list(iterate_shard(str(shard), (*ROLES, "info")))
    assert [sample.key for sample in samples] == ["k0", "k1", "k2"]
    assert samples[1].entries == encode_plane("k1").entries


def test_equal_samples_make_equal_bytes(tmp_path):
    infos = [write_shard(tmp_path, f"{name}.tar", [encode_plane("k")]) for name in "ab"]
    assert infos[0].sha256 == infos[1].sha256
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_an_interrupted_write_leaves_no_shard_under_its_final_name(tmp_path):
    def samples():
        yield encode_plane("k0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path, "a.tar", samples())
    assert not (tmp_path / "a.tar").exists()


def test_stock_webdataset_reads_our_shards(shard):
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["k0", "k1", "k2"]
    assert {"image.png", "depth.blosc", "normals.blosc", "json"} <= set(samples[0])


def test_a_shard_can_come_from_a_command(shard):
    assert len(list(iterate_shard(f"pipe:cat {shard}", ROLES))) == 3


def test_a_command_may_print_more_after_the_end_of_the_archive(shard):
    assert len(list(iterate_shard(f"pipe:cat {shard}; head -c 300000 /dev/zero || exit 5", ROLES))) == 3


def test_a_command_that_fails_at_its_end_is_an_error(shard):
    with pytest.raises(InputError, match="cannot be read"):
        list(iterate_shard(f"pipe:cat {shard}; exit 3", ROLES))


@pytest.mark.filterwarnings("error")
def test_leaving_a_shard_in_the_middle_is_no_error(shard):
    samples = iterate_shard(f"pipe:cat {shard}; head -c 3000000 /dev/zero || exit 5", ROLES)
    assert next(samples).key == "k0"
    samples.close()


@pytest.mark.parametrize("source", ["{}", "pipe:cat {}"])
def test_skipped_samples_are_left_out(shard, source):
    assert [sample.key for sample in iterate_shard(source.format(shard), ROLES, skip=2)] == ["k2"]


@pytest.mark.parametrize("key", ["a.b", "a/b", "", "a b"])
def test_a_key_that_webdataset_would_misread_is_refused(tmp_path, key):
    with pytest.raises(InputError, match="key"):
        write_shard(tmp_path, "a.tar", [EncodedSample(key, "", {"json": b"{}"})])


def test_two_samples_with_one_key_are_refused(tmp_path):
    with pytest.raises(InputError, match="'k'"):
        write_shard(tmp_path, "a.tar", [encode_plane("k"), encode_plane("k")])


@pytest.mark.parametrize("extension", ["pyd", "pkl", "pickle", "depth.pth"])
def test_a_pickle_in_a_shard_is_refused_by_name(tmp_path, extension):
    shard = write_tar(tmp_path / "a.tar", [(f"k.{extension}", pickle.dumps(1))])
    with pytest.raises(InputError, match=rf"a\.tar.*'k'.*{extension}"):
        list(iterate_shard(shard, ROLES))


@pytest.mark.parametrize("name", ["../k.json", "/k.json", "folder/k.json", "k", ".json"])
def test_an_entry_outside_the_layout_is_refused(tmp_path, name):
    shard = write_tar(tmp_path / "a.tar", [(name, b"{}")])
    with pytest.raises(InputError, match="no sample's entry"):
        list(iterate_shard(shard, ROLES))


def test_a_missing_entry_names_shard_and_sample(tmp_path):
    entries = encode_plane("k").entries
    shard = write_tar(tmp_path / "a.tar", [("k.image.png", entries["image.png"])])
    with pytest.raises(InputError, match=r"a\.tar: sample 'k' has no depth"):
        list(iterate_shard(shard, ROLES))


def test_a_doubled_entry_names_shard_and_sample(tmp_path):
    entries = [(f"k.{name}", data) for name, data in encode_plane("k").entries.items()]
    with pytest.raises(InputError, match=r"a\.tar: sample 'k' has the entry 'depth\.blosc' twice"):
        list(iterate_shard(write_tar(tmp_path / "a.tar", [*entries, entries[1]]), ROLES))


def test_depth_in_two_formats_is_refused_as_ambiguous(tmp_path):
    entries = [(f"k.{name}", data) for name, data in encode_plane("k").entries.items()]
    with pytest.raises(InputError, match="more than one depth"):
        list(iterate_shard(write_tar(tmp_path / "a.tar", [*entries, ("k.depth.npy", b"")]), ROLES))


@pytest.mark.parametrize("source", ["{}", "pipe:cat {}"])
def test_a_truncated_shard_is_named(shard, source):
    shard.write_bytes(shard.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"a\.tar"):
        list(iterate_shard(source.format(shard), ROLES))


def test_an_entry_that_cannot_be_decoded_names_shard_and_sample(tmp_path):
    broken = EncodedSample("k", "a.tar", {**encode_plane("k").entries, "image.png": b"rubbish"})
    with pytest.raises(InputError, match=r"a\.tar: sample 'k', entry 'image\.png'"):
        decode_sample(broken, ROLES)
