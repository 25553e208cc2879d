import multiprocessing
import os
import resource
import subprocess
from types import SimpleNamespace

import pytest
from jsonargparse import ArgumentParser

from geometry.command_line.messages import mistake_behind
from lightning_modules.training.run_record import RunRecord, git_commit


def git(folder, *words):
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    command = ["git", "-C", str(folder), *identity, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    git(tmp_path, "tag", "-a", "v1", "-m", "a tag is no commit")
    return tmp_path


def test_the_commit_is_the_full_hash_and_says_if_the_code_was_changed(repository):
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "runs").mkdir()  # new files are no change of the code
    assert git_commit(repository / "runs") == commit
    (repository / "code.py").write_text("2")
    assert git_commit(repository) == f"{commit}-dirty"


def test_without_repository_or_git_there_is_no_commit_and_no_error(tmp_path, repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / ".git").rename(tmp_path / "git-of-somebody-else")
    assert git_commit(tmp_path) is None
    (tmp_path / "git-of-somebody-else").rename(tmp_path / ".git")
    assert git_commit(repository)
    monkeypatch.setenv("PATH", "")
    assert git_commit(repository) is None


def write_on_a_full_disk(record):
    """Write the record where no file may be longer than one byte; the exit status is 0 if a disk is blamed for it."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, most))
    try:
        record._write(SimpleNamespace(checkpoint_callbacks=[]))
    except Exception as error:
        os._exit(0 if "cannot be read or written" in str(mistake_behind(error)) else 1)
    os._exit(2)


def test_a_full_disk_leaves_the_record_of_the_start_before_and_is_no_traceback(tmp_path):
    parser = ArgumentParser()
    parser.add_argument("--name", default="first")
    RunRecord(parser, parser.parse_args([]), tmp_path)._write(SimpleNamespace(checkpoint_callbacks=[]))
    before = (tmp_path / "config.yaml").read_text()
    again = RunRecord(parser, parser.parse_args(["--name", "second"]), tmp_path, overwrite=True)
    process = multiprocessing.get_context("fork").Process(target=write_on_a_full_disk, args=(again,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert (tmp_path / "config.yaml").read_text() == before and "first" in before
    assert len(list(tmp_path.iterdir())) == 1
