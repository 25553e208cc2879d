"""A run killed at any step of saving: before every call that changes names or brings bytes to the disk."""

import itertools
import os

import pytest
import torch

from lightning_modules.training.checkpoint_files import DurableCheckpointIO, damage
from lightning_modules.training.run_folders import has_checkpoint, last_checkpoint
from tests.lightning_modules.training.test_checkpoints import fit, names_in, steps_in

pytestmark = pytest.mark.filterwarnings("ignore")

CALLS = ("fsync", "link", "replace", "unlink", "remove")
KILLED, ENDED = 9, 0


def run_and_die(action, at):
    """Run something in a process that ends without any clean-up at the given call; say whether it came so far."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == KILLED
    torch.set_num_threads(1)
    moments = itertools.count()

    def watched(call):
        def watch(*args, **kwargs):
            if next(moments) == at:
                os._exit(KILLED)
            return call(*args, **kwargs)

        return watch

    for name in CALLS:
        setattr(os, name, watched(getattr(os, name)))
    try:
        action()
    finally:
        os._exit(ENDED)


def every_kill(action, folders):
    """Yield one folder after another in which the action was killed one call later, until it comes through."""
    for at in itertools.count():
        folder = next(folders)
        if not run_and_die(lambda here=folder: action(here), at):
            assert at > 4, "the calls are no longer seen"
            return
        yield folder


@pytest.fixture
def folders(tmp_path):
    return (tmp_path / str(number) for number in itertools.count())


@pytest.mark.parametrize("can_link", [True, False])
def test_a_save_killed_at_any_call_leaves_a_complete_last_and_its_predecessor(folders, can_link, monkeypatch):
    def refuse(*args):
        raise PermissionError("Operation not permitted")

    if not can_link:
        monkeypatch.setattr(os, "link", refuse)
    write = DurableCheckpointIO().save_checkpoint

    def save(folder):
        write({"step": 3}, folder / "checkpoints/last.ckpt")

    def prepared():
        for folder in folders:
            for step in (1, 2):
                write({"step": step}, folder / "checkpoints/last.ckpt")
            yield folder

    seen = set()
    for folder in every_kill(save, prepared()):
        last, previous = (folder / f"checkpoints/{name}.ckpt" for name in ("last", "previous"))
        assert last_checkpoint(folder) == last
        assert damage(previous) is None
        steps = tuple(torch.load(file, weights_only=True)["step"] for file in (last, previous))
        assert steps in ((2, 1), (2, 2), (3, 2))
        seen.add(steps)
        write({"step": 4}, last)
        assert names_in(folder / "checkpoints") == ["last.ckpt", "previous.ckpt"], "nothing unfinished stays"
    assert seen == {(2, 1), (2, 2), (3, 2)}


@pytest.mark.parametrize(
    "options",
    [
        {"max_steps": 2, "every_n_steps": 1, "keep": 1},
        {"max_steps": 3, "every_n_steps": 3, "keep": 1, "monitor": "val/score"},
    ],
    ids=["newest", "best"],
)
def test_a_run_killed_at_any_call_finds_a_checkpoint_and_ends_with_the_same_files(folders, tmp_path, options):
    fit(tmp_path / "whole", **options)

    def train(folder):
        fit(folder / "checkpoints", **options)

    for folder in every_kill(train, folders):
        found = last_checkpoint(folder) if has_checkpoint(folder) else None
        files = folder / "checkpoints"
        assert found is not None or not (files / "last.ckpt").exists()
        assert found is None or found.name == "last.ckpt"
        fit(files, ckpt_path=found, **options)
        assert names_in(files) == names_in(tmp_path / "whole")
        for name in names_in(files):
            assert steps_in(files / name) == steps_in(tmp_path / "whole" / name)
