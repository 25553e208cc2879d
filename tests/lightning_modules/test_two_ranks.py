"""What must hold when two processes train together, on CPU."""

from datetime import timedelta
from itertools import chain

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from tests.tiny import build_base, make_batch

pytestmark = pytest.mark.filterwarnings("ignore")

VAL_SEEDS_BY_RANK = ([1, 2], [3])


class Loader:
    """Lightning would take a plain list of batches for a list of loaders."""

    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        return iter(self.batches)


class RankData(LightningDataModule):
    """Other batches on every rank; the second of rank 1 is poisoned, and rank 1 has fewer to validate."""

    val_dataset_names = ("tiny",)

    def train_dataloader(self):
        rank = self.trainer.global_rank
        batches = [make_batch(seed=10 * rank + index) for index in range(4)]
        if rank == 1:
            batches[1]["image"][:] = torch.nan
            batches[2]["valid_mask"][:] = False  # nothing to learn from here, but the other rank waits
        return Loader(batches)

    def val_dataloader(self):
        return Loader([make_batch(seed=seed) for seed in VAL_SEEDS_BY_RANK[self.trainer.global_rank]])


class Compare(Callback):
    """Runs in every rank's process; an assertion that fails there fails the run."""

    def on_train_end(self, trainer, pl_module):
        weights = torch.cat([p.detach().flatten() for p in pl_module.network.unet.parameters()])
        first, second = pl_module.all_gather(weights)
        assert weights.isfinite().all()
        assert torch.equal(first, second)
        assert pl_module.gradient_guard.num_skipped == 1
        losses = pl_module.all_gather(trainer.callback_metrics["train/loss"])
        assert losses[0] == losses[1] > 0

    def on_validation_end(self, trainer, pl_module):
        scores = pl_module.all_gather(trainer.callback_metrics["val/tiny/abs_rel"])
        assert scores[0] == scores[1]


def test_ranks_skip_the_same_steps_wait_for_each_other_and_share_one_score(tmp_path):
    def make_estimator():
        return SingleStepEstimator(StableDiffusion(str(build_base(tmp_path / "base"))), Depth())

    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(start_method="fork", timeout=timedelta(seconds=120)),
        max_steps=4,
        log_every_n_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=[Compare()],
    )
    estimator = make_estimator()
    before = estimator.network.unet.conv_in.weight.detach().clone()
    trainer.fit(estimator, RankData())
    assert not torch.equal(estimator.network.unet.conv_in.weight, before)

    metric = Depth().make_metric()
    for seed in chain(*VAL_SEEDS_BY_RANK):
        batch = make_batch(seed=seed)
        with torch.no_grad():
            estimator.task.update_metric(metric, estimator(batch["image"]), batch)
    expected = metric.compute()["abs_rel"].item()
    assert trainer.callback_metrics["val/tiny/abs_rel"].item() == pytest.approx(expected, rel=1e-6)
