import io
import tarfile

import pytest

from datamodules.shards.samples import scan_shard
from geometry.errors import InputError
from geometry.files.limits import MAX_MEMBERS_PER_SAMPLE, MAX_TAR_HEADERS_IN_A_ROW
from tests.helpers.planes import encode_plane

ROLES = ("image", "depth")


def header(name, size=0, kind=tarfile.REGTYPE):
    """One block of a tar file; ``size`` may be bytes that no writer would put there."""
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf())
    block[124:136] = size if isinstance(size, bytes) else f"{size:011o}\0".encode()
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def member(name, data=b"", **options):
    return header(name, len(data), **options) + data + bytes(-len(data) % 512)


def sample(key):
    return b"".join(member(f"{key}.{name}", data) for name, data in encode_plane(key).entries.items())


def pax(**fields):
    records = b""
    for name, value in fields.items():
        record = f" {name}={value}\n".encode()
        length = len(record) + 2
        records += f"{length + (len(str(length)) - 2)}".encode() + record
    return member("pax", records, kind=tarfile.XHDTYPE)


END = bytes(1024)
BASE_256 = b"\x80" + (1 << 70).to_bytes(11, "big")
HOSTILE = {
    "a negative size": header("s1.image.png", (-512).to_bytes(12, "big", signed=True)) + END,
    "a size of 2**70": header("s1.json", BASE_256) + END,
    "a negative size in an extended header": pax(size=-10240) + member("s1.json", b"{}") + END,
    "a size beyond all numbers in an extended header": pax(size=10**30) + member("s1.json", b"{}") + END,
    "headers without end": pax(comment="x") * 2000 + member("s1.json", b"{}") + END,
    "a header of a gigabyte": header("pax", 1 << 30, tarfile.XHDTYPE) + bytes(4096),
    "a file with holes": member("s1.image.png", bytes(512), kind=tarfile.GNUTYPE_SPARSE) + END,
    "a map of holes that never ends": pax(**{"GNU.sparse.major": 1, "GNU.sparse.minor": 0})
    + member("s1.image.png", b"9" * 512)
    + END,
    "members without end": member("s0.json", b"{}") * (MAX_MEMBERS_PER_SAMPLE + 10) + sample("s1") + END,
}


def scan(folder, content, source="{}"):
    (folder / "shard.tar").write_bytes(content)
    return list(scan_shard(source.format(folder / "shard.tar"), ROLES))


@pytest.mark.parametrize("source", ["{}", "pipe:cat {}"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_header_that_would_never_end_or_fill_the_memory_gives_the_shard_up(tmp_path, name, source):
    with pytest.raises(InputError, match=r"shard\.tar cannot be read after sample 's[01]'"):
        scan(tmp_path, sample("s0") + HOSTILE[name], source)


def test_a_few_extended_headers_are_read(tmp_path):
    headers = pax(comment="x") * (MAX_TAR_HEADERS_IN_A_ROW - 1)
    (only,) = scan(tmp_path, headers + sample("s0") + END)
    assert only.key == "s0" and not only.problem


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_shards_of_other_writers_are_read(tmp_path, tar_format):
    key = "a" * 120 + "é"
    with tarfile.open(tmp_path / "shard.tar", "w", format=tar_format) as tar:
        for name, data in encode_plane("k").entries.items():
            info = tarfile.TarInfo(f"{key}.{name}")
            info.size, info.mtime = len(data), 1.5
            tar.addfile(info, io.BytesIO(data))
    (only,) = scan(tmp_path, (tmp_path / "shard.tar").read_bytes())
    assert (only.key, only.problem, set(only.entries)) == (key, "", {"image.png", "depth.blosc"})


def test_companions_that_macos_packs_are_passed_over(tmp_path):
    companions = member("._s0.image.png", b"Mac OS X") + member("._s0.depth.blosc", b"Mac OS X")
    samples = scan(tmp_path, companions + sample("s0") + sample("s1") + END)
    assert [(each.key, each.problem) for each in samples] == [("s0", ""), ("s1", "")]


@pytest.mark.parametrize("source", ["{}", "pipe:cat {}"])
@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"])
def test_a_compressed_shard_is_named_as_such(tmp_path, magic, source):
    with pytest.raises(InputError, match=r"it is compressed \(.*decompress"):
        scan(tmp_path, magic + bytes(10240), source)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", bytes(511), b"\xff" * 4096])
def test_a_file_that_is_no_shard_is_named(tmp_path, content):
    with pytest.raises(InputError, match=r"shard\.tar cannot be read"):
        scan(tmp_path, content)


def test_a_name_that_is_no_text_is_a_sample_that_can_be_named_anywhere(tmp_path):
    bad = sample("XX").replace(b"XX.", b"\xff\x1b.")
    blocks = [bad[i : i + 512] for i in range(0, len(bad), 512)]
    for index, block in enumerate(blocks):
        if block.startswith(b"\xff\x1b."):
            fixed = bytearray(block)
            fixed[148:156] = b" " * 8
            fixed[148:156] = f"{sum(fixed):06o}\0 ".encode()
            blocks[index] = bytes(fixed)
    first, middle, last = scan(tmp_path, sample("s0") + b"".join(blocks) + sample("s1") + END)
    assert not first.problem and not last.problem
    assert "cannot be a sample's key" in middle.problem
    (middle.key + middle.problem).encode("utf-8")
    assert middle.problem.isprintable()


def test_entries_that_do_not_follow_each_other_say_how_to_pack_them(tmp_path):
    images = b"".join(member(f"s{i}.image.png", b"x") for i in range(3))
    depths = b"".join(member(f"s{i}.depth.npy", b"x") for i in range(3))
    samples = scan(tmp_path, images + depths + END)
    assert all(each.problem for each in samples)
    assert "--sort=name" in samples[-1].problem


def test_names_with_a_folder_in_front_say_how_to_pack_them(tmp_path):
    with pytest.raises(InputError, match=r"'\./s0\.image\.png' is no sample's entry.*tar -cf"):
        scan(tmp_path, member("./s0.image.png", b"x") + END)


def test_what_follows_a_shard_without_end_is_not_read_for_ever(tmp_path):
    with pytest.raises(InputError, match="follow the end of the archive"):
        scan(tmp_path, sample("s0") + END, "pipe:cat {} /dev/zero")


@pytest.mark.parametrize("source", ["folder", "/dev/zero"])
def test_what_is_no_regular_file_is_not_read(tmp_path, source):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="no regular file"):
        list(scan_shard(str(tmp_path / source), ROLES))
