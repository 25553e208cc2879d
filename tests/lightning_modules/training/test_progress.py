import io
import re

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

import lightning_modules.training.progress as progress

pytestmark = pytest.mark.filterwarnings("ignore")


class Weight(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        self.bar_values = {"loss": torch.tensor(0.25)}
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=1.0)

    def train_dataloader(self):
        return [0] * 4

    def val_dataloader(self):
        return [0, 0]


@pytest.fixture
def screen(monkeypatch):
    stream = io.StringIO()
    real = progress.tqdm
    monkeypatch.setattr(progress, "tqdm", lambda **options: real(file=stream, ascii=True, ncols=120, **options))
    return stream


def fit(**options):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        callbacks=[progress.StepProgress()],
        **({"max_steps": 6, "val_check_interval": 3} | options),
    )
    trainer.fit(Weight())


def test_one_bar_counts_optimiser_steps_to_the_end_over_all_epochs(screen):
    fit()
    last = [line for line in re.split(r"[\r\n]", screen.getvalue()) if line.startswith("train")][-1]
    assert "6/6" in last
    assert "loss 0.25" in last


def test_the_time_left_is_known_for_epochs_too(screen):
    fit(max_steps=-1, max_epochs=2, accumulate_grad_batches=2)
    last = [line for line in re.split(r"[\r\n]", screen.getvalue()) if line.startswith("train")][-1]
    assert re.search(r"4/4 \[\d\d:\d\d<\d\d:\d\d", last)


def test_accumulated_batches_are_no_steps(screen):
    fit(accumulate_grad_batches=2, max_steps=3)
    assert "3/3" in screen.getvalue()
    assert "4/3" not in screen.getvalue()


def test_validation_has_a_bar_of_its_own(screen):
    fit()
    assert re.search(r"validate: .* 0/2", screen.getvalue())


def test_metrics_are_read_once_a_second_at_most_for_reading_makes_the_gpu_wait(screen, monkeypatch):
    reads = []
    monkeypatch.setattr(progress, "_format", lambda metrics: reads.append(1) or "")
    fit(max_steps=50, val_check_interval=1000)
    assert len(reads) < 25
