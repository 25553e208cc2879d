import os

import pytest

from geometry.files.writing import write_whole


@pytest.mark.parametrize("name", ["a.txt", "a" * 255])
def test_a_file_is_written_whatever_its_name_and_nothing_else_is_left(tmp_path, name):
    write_whole(tmp_path / name, "grün")
    write_whole(tmp_path / name, b"blau")
    assert (tmp_path / name).read_text(encoding="utf-8") == "blau"
    assert os.listdir(tmp_path) == [name]


def test_a_file_that_cannot_be_finished_stays_what_it_was(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, b"new")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    (tmp_path / "link.txt").symlink_to(tmp_path / "kept.txt")
    write_whole(tmp_path / "link.txt", "new")
    assert (tmp_path / "kept.txt").read_text() == "kept"
    assert (tmp_path / "link.txt").read_text() == "new"


def test_others_may_read_what_the_users_mask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a.txt", "all")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
