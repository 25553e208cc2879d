"""A folder that one process writes into is closed to others, and open again whatever becomes of that process."""

import multiprocessing
import os
import signal
import time

import pytest

from geometry.errors import InputError
from geometry.files.locks import sole_use

_context = multiprocessing.get_context("fork")


def hold(folder, connection, with_helper=False):
    with sole_use(folder):
        if with_helper and os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        connection.send("held")
        connection.recv()
        (folder / "finished").write_text("")


@pytest.fixture
def holder(tmp_path):
    """Start a process that holds the folder; it ends with the test."""
    started = []

    def start(**options):
        here, there = _context.Pipe()
        process = _context.Process(target=hold, args=(tmp_path, there), kwargs=options)
        process.start()
        assert here.recv() == "held"
        started.append(process)
        return process, here

    yield start
    for process in started:
        process.kill()
        process.join()


def test_a_second_process_is_told_who_holds_the_folder(tmp_path, holder):
    process, _ = holder()
    with pytest.raises(InputError, match=rf"in use by process {process.pid} on .*wait for its end"), sole_use(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_taken_over_though_a_helper_of_it_lives_on(tmp_path, holder):
    process, _ = holder(with_helper=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with sole_use(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock.holder").read_text()


def test_a_patient_process_waits(tmp_path, holder):
    _, connection = holder()
    connection.send("end soon")
    with sole_use(tmp_path, is_patient=True):
        assert (tmp_path / "finished").exists()


def test_nothing_is_left_behind(tmp_path):
    with sole_use(tmp_path / "new"):
        assert (tmp_path / "new/.lock").exists()
    assert list(tmp_path.iterdir()) == []
    with sole_use(tmp_path):
        (tmp_path / "result").write_text("kept")
    assert [file.name for file in tmp_path.iterdir()] == ["result"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"), sole_use(tmp_path / "file/folder"):
        pass


def test_a_note_of_another_program_is_no_reason_to_fail(tmp_path, holder):
    holder()
    (tmp_path / ".lock.holder").write_text('{"pid": "\\u001b[31m", "host": 1}')
    with pytest.raises(InputError, match="in use by another process"), sole_use(tmp_path):
        pass
