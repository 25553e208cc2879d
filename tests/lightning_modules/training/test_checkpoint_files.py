import os
import pickle

import pytest
import torch

from geometry.errors import InputError
from lightning_modules.training.checkpoint_files import DurableCheckpointIO, damage


@pytest.fixture
def folder(tmp_path):
    DurableCheckpointIO().save_checkpoint(content(1), tmp_path / "last.ckpt")
    return tmp_path


def content(step):
    return {"global_step": step, "state_dict": {"weights": torch.full((1000,), float(step))}}


def step_in(file):
    assert damage(file) is None
    return DurableCheckpointIO().load_checkpoint(file)["global_step"]


def test_a_new_checkpoint_takes_the_name_and_the_old_one_stays_as_the_previous(folder):
    for step in (2, 3):
        DurableCheckpointIO().save_checkpoint(content(step), folder / "last.ckpt")
        assert (step_in(folder / "last.ckpt"), step_in(folder / "previous.ckpt")) == (step, step - 1)
    assert sorted(os.listdir(folder)) == ["last.ckpt", "previous.ckpt"]


def test_a_full_disk_leaves_the_old_checkpoint_and_says_so(folder):
    (folder / "unfinished.tmp").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"last\.ckpt cannot be written \(No space left on device\).*intact"):
        DurableCheckpointIO().save_checkpoint(content(2), folder / "last.ckpt")
    assert os.listdir(folder) == ["last.ckpt"]
    assert step_in(folder / "last.ckpt") == 1


def test_a_kill_while_writing_leaves_the_old_checkpoint(folder, monkeypatch):
    def killed(checkpoint, stream):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        DurableCheckpointIO().save_checkpoint(content(2), folder / "last.ckpt")
    assert step_in(folder / "last.ckpt") == 1


def test_a_disk_without_hard_links_keeps_the_previous_one_too(folder, monkeypatch):
    def refuse(source, target):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    DurableCheckpointIO().save_checkpoint(content(2), folder / "last.ckpt")
    assert (step_in(folder / "last.ckpt"), step_in(folder / "previous.ckpt")) == (2, 1)


@pytest.mark.parametrize("size", [0, 10, 3000, -1])
def test_a_cut_off_checkpoint_is_noticed(folder, size):
    file = folder / "last.ckpt"
    file.write_bytes(file.read_bytes()[:size])
    assert damage(file)


def test_one_wrong_bit_in_a_weight_is_noticed_though_torch_loads_it(folder):
    file = folder / "last.ckpt"
    data = bytearray(file.read_bytes())
    data[data.index(torch.ones(4).numpy().tobytes())] ^= 1
    file.write_bytes(data)
    assert torch.load(file, weights_only=True)["global_step"] == 1
    assert "checksum" in damage(file)


class Exploding:
    def __reduce__(self):
        return (pytest.fail, ("code from a checkpoint was run",))


def test_code_in_a_checkpoint_is_never_run(tmp_path):
    torch.save({"state_dict": Exploding()}, tmp_path / "evil.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Exploding()))
    for name in ("evil", "plain"):
        with pytest.raises(InputError, match=f"{name}.ckpt cannot be read"):
            DurableCheckpointIO().load_checkpoint(tmp_path / f"{name}.ckpt", weights_only=False)
