import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_modules.checkpoints import Checkpoints, last_checkpoint, newest_run

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


def fit(folder, max_steps, **options):
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
    )
    trainer.fit(Weight())


def steps_in(file):
    return torch.load(file, weights_only=True)["state_dict"]["weight"].item()


@pytest.mark.parametrize("max_steps", [1, 2, 5])
def test_the_final_weights_are_saved_wherever_the_run_ends(tmp_path, max_steps):
    fit(tmp_path, max_steps, every_n_steps=2)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert steps_in(tmp_path / "last.ckpt") == max_steps


def test_the_best_checkpoint_by_a_metric_is_kept_beside_the_last(tmp_path):
    fit(tmp_path, 4, every_n_steps=1, monitor="val/score", keep=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "step000002.ckpt"]
    assert steps_in(tmp_path / "step000002.ckpt") == 2
    assert steps_in(tmp_path / "last.ckpt") == 4


def test_all_checkpoints_can_be_kept(tmp_path):
    fit(tmp_path, 4, every_n_steps=2, keep=-1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.ckpt", "step000002.ckpt", "step000004.ckpt"]


def test_last_means_the_newest_run_that_has_a_checkpoint(tmp_path):
    assert newest_run(tmp_path) is None
    for name in ("version_2", "version_9", "version_10", "version_old", "other_11"):
        file = last_checkpoint(tmp_path / name)
        file.parent.mkdir(parents=True)
        file.touch()
    (tmp_path / "version_12").mkdir()  # ended before its first checkpoint
    assert newest_run(tmp_path).name == "version_10"
