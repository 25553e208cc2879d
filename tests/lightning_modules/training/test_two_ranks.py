"""What must hold when two processes train together, on CPU."""

from datetime import timedelta
from itertools import chain
from typing import ClassVar

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.strategies import DDPStrategy

from geometry.batch import DatasetInfo
from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from tests.helpers.tiny import build_base, make_batch

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

    val_dataset_infos = (DatasetInfo("tiny"),)
    image_sizes: ClassVar = {"tiny": (32, 32)}
    train_image_sizes = ((32, 32),)

    def train_dataloader(self):
        rank = self.trainer.global_rank
        batches = [make_batch(seed=10 * rank + index) for index in range(4)]
        if rank == 1:
            batches[1].image[:] = torch.nan
            batches[2].targets["depth"].mask[:] = False  # nothing to learn from here, but the other rank waits
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


def two_ranks(max_steps, *callbacks, log_every_n_steps=50):
    return Trainer(
        accelerator="cpu",
        devices=2,
        strategy=DDPStrategy(start_method="fork", timeout=timedelta(seconds=120)),
        max_steps=max_steps,
        log_every_n_steps=log_every_n_steps,
        callbacks=list(callbacks),
        **QUIET,
    )


QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "use_distributed_sampler": False,
    "num_sanity_val_steps": 0,
}


class SharedData(LightningDataModule):
    """Four images with equally many valid pixels, dealt out to the ranks."""

    val_dataset_infos = ()
    image_sizes: ClassVar = {"tiny": (32, 32)}
    train_image_sizes = ((32, 32),)

    def train_dataloader(self):
        batch = make_batch(4)
        batch.targets["depth"].mask[:] = True
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return Loader([batch[rank::ranks]])


def test_two_ranks_with_two_images_learn_what_one_learns_from_four(tmp_path):
    base = str(build_base(tmp_path / "base"))
    trained = []
    for trainer in (Trainer(accelerator="cpu", max_steps=1, **QUIET), two_ranks(1)):
        # Plain descent: what an optimiser divides by the size of the gradient would hide a factor.
        estimator = SingleStepEstimator(
            StableDiffusion(base),
            Depth(),
            optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
            warmup_steps=0,
            gradient_clip_norm=None,
        )
        before = torch.nn.utils.parameters_to_vector(estimator.network.unet.parameters()).detach()
        trainer.fit(estimator, SharedData())
        after = torch.nn.utils.parameters_to_vector(estimator.network.unet.parameters()).detach()
        trained.append(after - before)
    assert trained[0].norm() > 0
    assert (trained[1] - trained[0]).norm() < 1e-5 * trained[0].norm()


def test_ranks_skip_the_same_steps_wait_for_each_other_and_share_one_score(tmp_path):
    def make_estimator():
        return SingleStepEstimator(StableDiffusion(str(build_base(tmp_path / "base"))), Depth())

    trainer = two_ranks(4, Compare(), log_every_n_steps=2)
    estimator = make_estimator()
    before = estimator.network.unet.conv_in.weight.detach().clone()
    trainer.fit(estimator, RankData())
    assert not torch.equal(estimator.network.unet.conv_in.weight, before)

    metric = Depth().make_metrics(DatasetInfo("tiny"))[0]
    for seed in chain(*VAL_SEEDS_BY_RANK):
        batch = make_batch(seed=seed)
        with torch.no_grad():
            estimator.task.update_metrics([metric], estimator(batch.image), batch)
    expected = metric.compute()["abs_rel"].item()
    assert trainer.callback_metrics["val/tiny/abs_rel"].item() == pytest.approx(expected, rel=1e-6)
