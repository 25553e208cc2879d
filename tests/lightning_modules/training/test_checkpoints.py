import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from geometry.errors import InputError
from lightning_modules.training.checkpoint_files import DurableCheckpointIO
from lightning_modules.training.checkpoints import Checkpoints

pytestmark = pytest.mark.filterwarnings("ignore")


class Weight(LightningModule):
    """Counts its steps in its one weight, and gets worse in validation after step 2."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        return -self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/score", abs(self.weight.item() - 2))

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=1.0)

    def train_dataloader(self):
        return [torch.zeros(1)] * 10

    def val_dataloader(self):
        return [torch.zeros(1)]


def fit(folder, max_steps, ckpt_path=None, **options):
    trainer = Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=1,
        check_val_every_n_epoch=None,
        callbacks=[Checkpoints(folder=str(folder), **options)],
        plugins=[DurableCheckpointIO()],
    )
    trainer.fit(Weight(), ckpt_path=ckpt_path, weights_only=True)


def steps_in(file):
    return torch.load(file, weights_only=True)["state_dict"]["weight"].item()


def names_in(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(("max_steps", "previous"), [(1, None), (2, None), (5, 4)])
def test_the_final_weights_are_saved_wherever_the_run_ends(tmp_path, max_steps, previous):
    fit(tmp_path, max_steps, every_n_steps=2)
    assert steps_in(tmp_path / "last.ckpt") == max_steps
    assert names_in(tmp_path) == (["last.ckpt", "previous.ckpt"] if previous else ["last.ckpt"])
    assert previous is None or steps_in(tmp_path / "previous.ckpt") == previous


def test_the_best_checkpoint_by_a_metric_is_the_one_that_was_validated(tmp_path):
    fit(tmp_path, 4, every_n_steps=1, monitor="val/score", keep=1)
    assert names_in(tmp_path) == ["last.ckpt", "previous.ckpt", "step000002-score-0.ckpt"]
    assert steps_in(tmp_path / "step000002-score-0.ckpt") == 2
    assert steps_in(tmp_path / "last.ckpt") == 4


@pytest.mark.parametrize(("keep", "kept"), [(-1, [1, 2, 3, 4]), (2, [3, 4])])
def test_all_or_the_newest_checkpoints_can_be_kept_at_no_cost_for_the_last(tmp_path, keep, kept):
    fit(tmp_path, 4, every_n_steps=1, keep=keep)
    assert names_in(tmp_path) == ["last.ckpt", "previous.ckpt", *(f"step{step:06d}.ckpt" for step in kept)]
    assert [steps_in(tmp_path / f"step{step:06d}.ckpt") for step in kept] == kept
    assert (tmp_path / "last.ckpt").samefile(tmp_path / "step000004.ckpt")


def test_checkpoints_by_the_clock(tmp_path):
    fit(tmp_path, 3, every_n_steps=1000, every_n_minutes=1e-9, keep=-1)
    assert names_in(tmp_path)[2:] == ["step000001.ckpt", "step000002.ckpt", "step000003.ckpt"]


@pytest.mark.parametrize("option", [{"every_n_steps": 0}, {"every_n_minutes": 0}, {"keep": -2}])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(InputError, match="every_n_steps of at least 1"):
        Checkpoints(**option)
