"""Ctrl-C, a full disk, one that may not be written to, a working folder that is gone: one line in every command."""

import os
import shutil

import pytest

import train
from benchmarks.wrong_options.values import Material
from tests.helpers import commands, runs
from tests.tiny_bases import write_base

MISTAKE, STOPPED = 2, 130
# What writes nothing, or nothing where it is told to.
NO_OUTPUT = {"validate", "plan", "serve", "prepare check"}
ALL = commands.names()
WRITING = [name for name in ALL if name not in NO_OUTPUT]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    runs.start_server()
    made = Material(tmp_path_factory.mktemp("material"))
    commands.extend(made)
    write_base(made.folder / "sd3", "stable_diffusion_3")
    return made


def errors_in(printed):
    return [line for line in printed.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("name", train.COMMANDS)
def test_a_working_folder_that_is_gone_is_one_line(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as end:
        train.main([name])
    assert end.value.code == MISTAKE
    assert capsys.readouterr().err.startswith("error: the working folder is gone")


@pytest.mark.slow
def test_no_command_is_forgotten(material, tmp_path):
    assert sorted(commands.lines(material, tmp_path)) == sorted(ALL)


def assert_goes_on(name, words, tmp_path, out):
    """Assert that the same command, given again, succeeds."""
    status, printed = commands.run(words, tmp_path / "log.txt")
    if name.startswith("synthesize") and status == MISTAKE and "remove the old scenes first" in printed:
        shutil.rmtree(out)
        status, printed = commands.run(words, tmp_path / "log.txt")
    assert status == 0, printed


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", ALL)
def test_ctrl_c_says_that_it_stopped_and_the_same_command_goes_on(name, times, material, tmp_path):
    out, log = tmp_path / "out", tmp_path / "log.txt"
    words = commands.begin(name, material, out)
    # The configuration is the first file; a later one lies amid the work.
    for stop_at in (1, 4):
        status, printed = commands.run(words, log, stop_at, (material.folder, out), times)
        if status == MISTAKE and name.startswith("synthesize"):
            continue  # it has begun, and says what to remove
        assert status == STOPPED, printed
        assert "Traceback" not in printed
        assert "topped" in printed.strip().splitlines()[-1]
        assert not errors_in(printed)
    if name != "serve":
        assert_goes_on(name, words, tmp_path, out)


@pytest.mark.slow
def test_a_page_that_is_stopped_says_so(material, tmp_path):
    words = commands.lines(material, tmp_path)["serve"]
    status, printed = commands.run(words, tmp_path / "log.txt", when_printed="Running on local URL")
    assert status == STOPPED and printed.strip().splitlines()[-1] == "Stopped."


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 12_288])
@pytest.mark.parametrize("name", WRITING)
def test_a_full_disk_is_one_line_and_with_room_the_same_command_succeeds(name, room, material, tmp_path):
    with commands.small_disk(tmp_path / "disk", "20m") as is_there:
        if not is_there:
            pytest.skip("this user may not mount a disk")
        out = tmp_path / "disk/out"
        words = commands.begin(name, material, out)
        fill(tmp_path / "disk", room)
        status, printed = commands.run(words, tmp_path / "log.txt")
        assert "Traceback" not in printed
        if status != 0 or not room:  # tables of a few bytes have room
            assert status == MISTAKE, printed
            assert len(errors_in(printed)) == 1 and "No space left on device" in printed, printed
            (tmp_path / "disk/filling").unlink()
            assert_goes_on(name, words, tmp_path, out)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITING)
def test_a_disk_that_may_not_be_written_to_is_one_line(name, material, tmp_path):
    with commands.small_disk(tmp_path / "disk", "20m") as is_there:
        if not is_there:
            pytest.skip("this user may not mount a disk")
        words, log = commands.begin(name, material, tmp_path / "disk/out"), tmp_path / "log.txt"
        assert commands.remount(tmp_path / "disk", "remount,ro")
        status, printed = commands.run(words, log)
        assert status == MISTAKE, printed
        assert "Traceback" not in printed
        assert len(errors_in(printed)) == 1 and "ead-only file system" in printed, printed


def fill(disk, room):
    """Leave some bytes of room, a multiple of a page."""
    free = os.statvfs(disk)
    with open(disk / "filling", "wb") as file:
        file.write(bytes(free.f_bavail * free.f_frsize - room))
