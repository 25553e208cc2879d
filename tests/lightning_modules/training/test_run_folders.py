import pytest
import torch

from geometry.errors import InputError
from lightning_modules.training.checkpoint_files import DurableCheckpointIO
from lightning_modules.training.run_folders import last_checkpoint, newest_run


def test_last_means_the_newest_run_that_has_a_checkpoint(tmp_path):
    assert newest_run(tmp_path) is None
    for name in ("version_2", "version_9", "version_10", "version_old", "other_11"):
        file = tmp_path / name / "checkpoints/last.ckpt"
        file.parent.mkdir(parents=True)
        file.touch()
    (tmp_path / "version_12").mkdir()  # ended before its first checkpoint
    assert newest_run(tmp_path).name == "version_10"


class TestDamage:
    @pytest.fixture
    def run(self, tmp_path):
        for step in (1, 2, 3):
            DurableCheckpointIO().save_checkpoint({"step": step}, tmp_path / "checkpoints/last.ckpt")
        return tmp_path

    def test_a_cut_off_checkpoint_is_named_and_the_previous_one_used(self, run):
        last = run / "checkpoints/last.ckpt"
        last.write_bytes(last.read_bytes()[:-100])
        with pytest.warns(UserWarning, match=r"last\.ckpt is damaged: .* Going on from previous\.ckpt"):
            found = last_checkpoint(run, set_aside=True)
        assert torch.load(found, weights_only=True) == {"step": 2}
        # The next save must not push the good one out by keeping the damaged one as the previous.
        DurableCheckpointIO().save_checkpoint({"step": 3}, last)
        assert torch.load(run / "checkpoints/previous.ckpt", weights_only=True) == {"step": 2}

    def test_or_the_run_stops(self, run):
        (run / "checkpoints/last.ckpt").write_bytes(b"")
        with pytest.raises(InputError, match=r"last\.ckpt is damaged"):
            last_checkpoint(run, on_damage="stop")

    def test_a_run_whose_checkpoints_are_all_damaged_is_never_started_anew_by_itself(self, run):
        for name in ("last", "previous"):
            (run / f"checkpoints/{name}.ckpt").write_bytes(b"PK")
        with pytest.raises(InputError, match="no other one"):
            last_checkpoint(newest_run(run.parent) or run)

    def test_a_good_checkpoint_is_taken_without_a_word(self, run, recwarn):
        assert last_checkpoint(run).name == "last.ckpt"
        assert not recwarn.list
