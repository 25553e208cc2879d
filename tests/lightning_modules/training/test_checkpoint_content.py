"""Nothing but plain tensors and values of known names is taken from a checkpoint, and each refusal is one line."""

import zipfile

import pytest
import torch

from geometry.errors import InputError
from lightning_modules.training.checkpoint_content import peek_checkpoint, read_checkpoint

WEIGHTS = {"w": torch.ones(4)}
CHECKPOINTS = {
    "dirpath": "runs/a/version_0/checkpoints",
    "best_model_path": "",
    "best_k_models": {},
    "kth_best_model_path": "",
    "last_model_path": "",
}
ENDLESS: list = []
ENDLESS.append(ENDLESS)


def save(tmp_path, content):
    torch.save(content, tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def checkpoints(**state):
    return {"state_dict": WEIGHTS, "callbacks": {"Checkpoints": CHECKPOINTS | state}}


@pytest.mark.parametrize(
    "content",
    [
        [1],
        {"weights": WEIGHTS},
        {"state_dict": {}},
        {"state_dict": [1]},
        {"state_dict": {"w": "x"}},
        {"state_dict": {"w": None}},
        {"state_dict": {1: torch.ones(1)}},
        {"state_dict": {"\x1b[2J": torch.ones(1)}},
        {"state_dict": {"w": torch.zeros(4, 4).to_sparse()}},
        {"state_dict": {"w": torch.zeros(4).to(torch.float8_e4m3fn)}},
        {"state_dict": {"w": torch.zeros(4, dtype=torch.int64)}},
        {"state_dict": {"w": torch.zeros(4, dtype=torch.complex64)}},
        {"state_dict": {"w": torch.zeros(4, device="meta")}},
        {"state_dict": {"w": torch.quantize_per_tensor(torch.zeros(4), 1.0, 0, torch.qint8)}},
        {"state_dict": {"w": torch.zeros(1).expand(10**6, 10**6)}},
        {"state_dict": {"w": torch.full((2,), float("nan"))}},
        {"state_dict": WEIGHTS, "ema_state_dict": 3},
        {"state_dict": WEIGHTS, "global_step": -1},
        {"state_dict": WEIGHTS, "global_step": "many"},
        {"state_dict": WEIGHTS, "pytorch-lightning_version": "x"},
        {"state_dict": WEIGHTS, "loops": 3},
        {"state_dict": WEIGHTS, "loops": {"fit_loop": ENDLESS}},
        {"state_dict": WEIGHTS, "means": [{"loss": "x"}]},
        {"state_dict": WEIGHTS, "callbacks": []},
        {"state_dict": WEIGHTS, "callbacks": {"ExponentialMovingAverage": {"num_updates": "x"}}},
        {"state_dict": WEIGHTS, "optimizer_states": [{"state": [], "param_groups": []}]},
        {"state_dict": WEIGHTS, "lr_schedulers": {"last_epoch": 1}},
    ],
    ids=str,
)
def test_whatever_is_of_another_kind_is_refused_in_one_line_that_names_the_file(tmp_path, content):
    file = save(tmp_path, content)
    with pytest.raises(InputError, match=r"last\.ckpt") as error:
        read_checkpoint(file)
    assert str(error.value).isprintable() and "weights_only" not in str(error.value)


@pytest.mark.parametrize(
    "state", [{"named": ["/home/a/thesis.ckpt"]}, {"best_k_models": {"../b.ckpt": torch.ones(())}}]
)
def test_a_checkpoint_cannot_have_files_removed_outside_of_its_folder(tmp_path, state):
    own = f"{CHECKPOINTS['dirpath']}/step000002.ckpt"
    assert read_checkpoint(save(tmp_path, checkpoints(named=[own])))["callbacks"]["Checkpoints"]["named"] == [own]
    with pytest.raises(InputError, match="no checkpoint in its folder"):
        read_checkpoint(save(tmp_path, checkpoints(**state)))


def test_what_has_a_name_that_is_not_known_is_left_and_named(tmp_path):
    file = save(tmp_path, {"state_dict": WEIGHTS, "hyper_parameters": {"class_path": "os.Model"}, "Data": {"at": 3}})
    with pytest.warns(UserWarning, match="also holds Data, hyper_parameters, which is not used"):
        assert read_checkpoint(file).keys() == {"state_dict"}
    with pytest.warns(UserWarning, match="also holds hyper_parameters"):
        assert read_checkpoint(file, ["Data"])["Data"] == {"at": 3}


def test_memory_is_not_taken_on_the_word_of_a_file(tmp_path):
    packed = tmp_path / "packed.ckpt"
    with zipfile.ZipFile(save(tmp_path, {"state_dict": {"w": torch.zeros(100_000)}})) as source:
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
            for member in source.infolist():
                target.writestr(member.filename, source.read(member))
    with pytest.raises(InputError, match="claims to hold more than its size"):
        peek_checkpoint(packed)
    # A callable of PyTorch's own list for weights_only that takes any amount of memory.
    bomb = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(bomb, "w") as target:
        target.writestr("archive/data.pkl", b"\x80\x02c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.")
    with pytest.raises(InputError, match=r"more than plain tensors and values \(__builtin__\.bytearray\)"):
        peek_checkpoint(bomb)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + bytes(18)])
def test_files_that_are_no_checkpoints(tmp_path, content):
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(InputError, match=r"last\.ckpt cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(InputError, match="it is no file"):
        read_checkpoint(tmp_path)
