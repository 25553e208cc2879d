import gzip
import io
import os
import pickle
import tarfile
import zipfile

import pytest

from datamodules.benchmarks.files import find_files, open_files
from geometry.errors import InputError
from tests.helpers.benchmark_archives import write_folder, write_tar

MEMBERS = {"test/a.png": b"first" * 300, "test/b.png": b"", "c/d/e.npy": b"third" * 500}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
def test_archives_and_folders_hold_the_same_files(tmp_path, kind):
    write = {"folder": write_folder, "tar": write_tar, "zip": write_zip}[kind]
    path = tmp_path / ("data" if kind == "folder" else f"data.{kind}")
    write(path, MEMBERS)
    files = pickle.loads(pickle.dumps(open_files(path)))  # as for a loader process
    assert set(files.places) == set(MEMBERS)
    assert {name: files.read(name) for name in MEMBERS} == MEMBERS
    assert files.damage == ""
    with pytest.raises(FileNotFoundError):
        files.read("test/nothing.png")


@pytest.mark.parametrize(("num_bytes", "left"), [(3000, {"test/a.png", "test/b.png"}), (1800, set())])
def test_a_tar_that_is_cut_off_says_so_and_gives_what_is_complete(tmp_path, num_bytes, left):
    path = write_tar(tmp_path / "data.tar", MEMBERS)
    path.write_bytes(path.read_bytes()[:num_bytes])
    files = open_files(path)
    assert set(files.places) == left
    assert "cut off" in files.damage and str(path) in files.damage
    assert all(files.read(name) == MEMBERS[name] for name in left)


def test_a_tar_that_is_cut_off_between_two_files_does_not_pass_for_complete(tmp_path):
    path = write_tar(tmp_path / "data.tar", {"a": bytes(512), "b": bytes(512)})
    path.write_bytes(path.read_bytes()[:1024])
    assert set(open_files(path).places) == {"a"}
    assert "end is missing" in open_files(path).damage


def test_what_is_no_archive_is_an_error_that_says_what_to_do(tmp_path):
    plain = write_tar(tmp_path / "plain.tar", MEMBERS)
    compressed = tmp_path / "data.tar"
    compressed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(InputError, match=r"data\.tar cannot be read .* compressed \.tar must be unpacked"):
        open_files(compressed)


def test_archives_are_found_in_the_root_and_one_folder_deeper_before_folders(tmp_path):
    write_tar(tmp_path / "kitti/kitti.tar", MEMBERS)
    write_folder(tmp_path / "kitti", MEMBERS)
    assert find_files(tmp_path, ["kitti.tar"], ["kitti"]) == [tmp_path / "kitti/kitti.tar", tmp_path / "kitti"]


def test_reading_a_damaged_zip_is_an_os_error(tmp_path):
    path = write_zip(tmp_path / "data.zip", {"a.png": bytes(range(256)) * 40})
    files = open_files(path)
    data = bytearray(path.read_bytes())
    data[60:80] = io.BytesIO(bytes(20)).read()
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"a\.png"):
        files.read("a.png")


def negative_size(path):
    """A .tar whose second file claims to be as large as the way back to its own header."""
    write_tar(path, {"a": bytes(512), "b": bytes(512)})
    data = bytearray(path.read_bytes())
    header = data[1024:1536]
    header[124:136] = (256**12 - 512).to_bytes(12)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    path.write_bytes(data)
    return path


def test_a_tar_with_a_negative_size_ends(tmp_path):
    files = open_files(negative_size(tmp_path / "data.tar"))
    assert set(files.places) == {"a"} and files.damage


def test_a_header_that_claims_gigabytes_of_name_is_not_read(tmp_path):
    write_tar(tmp_path / "data.tar", {"a": bytes(512), "b": bytes(512)})
    data = bytearray((tmp_path / "data.tar").read_bytes())
    header = data[1024:1536]
    header[124:136], header[156:157] = b"%011o\0" % (2 << 30), tarfile.GNUTYPE_LONGNAME
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[1024:1536] = header
    (tmp_path / "data.tar").write_bytes(data)
    os.truncate(tmp_path / "data.tar", 3 << 30)  # a hole, which takes no room on the disk
    files = open_files(tmp_path / "data.tar")
    assert set(files.places) == {"a"} and "a header claims 2147483648 bytes" in files.damage


def test_a_zip_that_would_unpack_to_gigabytes_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("test/a.png", "w", force_zip64=True) as member:
            for _ in range(60):
                member.write(bytes(8 << 20))
    with pytest.raises(InputError, match=r"test/a\.png has 480 MiB; more"):
        open_files(tmp_path / "data.zip").read("test/a.png")


def test_links_in_a_circle_and_what_systems_leave_are_passed_over(tmp_path):
    write_folder(tmp_path / "data", {"a/x.png": b"1", "a/._x.png": b"2", "__MACOSX/a/x.png": b"3", "Thumbs.db": b"4"})
    (tmp_path / "data/a/again").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/more").symlink_to(tmp_path / "data/a")
    assert set(open_files(tmp_path / "data").places) == {"a/x.png"}


def test_a_device_in_place_of_a_file_is_refused(tmp_path):
    write_folder(tmp_path / "data", {"a.png": b"1"})
    (tmp_path / "data/b.png").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="no regular file"):
        open_files(tmp_path / "data").read("b.png")
