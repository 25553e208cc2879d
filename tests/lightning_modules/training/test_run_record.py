import subprocess

import pytest

from lightning_modules.training.run_record import git_commit


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
