import os

import pytest

from geometry.errors import InputError
from geometry.files.reading import open_regular_file, read_regular_file, read_text_file


def test_a_pipe_is_not_waited_for_and_an_endless_device_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.symlink("/dev/zero", tmp_path / "zero")
    for name in ("pipe", "zero", "."):
        with pytest.raises(InputError, match="no regular file"):
            read_regular_file(tmp_path / name, 1000)


def test_a_file_is_read_up_to_its_limit_and_refused_beyond(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1000))
    assert read_regular_file(tmp_path / "a", 1000) == bytes(1000)
    with pytest.raises(InputError, match="a has 0 MiB; more"):
        read_regular_file(tmp_path / "a", 999)
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / "b", 999)


def test_refused_files_are_closed(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(InputError):
            open_regular_file(tmp_path / "a", 1)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_text_is_the_same_from_every_editor(tmp_path, start, end):
    (tmp_path / "a.txt").write_bytes(start + "tür".encode() + end + b"two" + end)
    assert read_text_file(tmp_path / "a.txt") == "tür\ntwo\n"


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("tür".encode("utf-16"))
    with pytest.raises(InputError, match=r"a\.txt is no text in UTF-8"):
        read_text_file(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"b\.txt cannot be read"):
        read_text_file(tmp_path / "b.txt")
