"""Compiled parts within DDP, gradients as views of its buckets, and accumulation: two processes on a CPU."""

from datetime import timedelta

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.networks.compilation import Compilation, compiled_regions
from tests.helpers.tiny import build_base, make_batch
from tests.lightning_modules.training.test_two_ranks import QUIET, Loader, SharedData

pytestmark = pytest.mark.filterwarnings("ignore")

ACCUMULATED, STEPS = 2, 2


class TwoBatches(SharedData):
    def train_dataloader(self):
        rank, ranks = self.trainer.global_rank, self.trainer.world_size
        return Loader([make_batch(4, seed=seed)[rank::ranks] for seed in range(ACCUMULATED * STEPS)])


class Buckets(Callback):
    """Runs in every rank's process; an assertion that fails there fails the run."""

    def __init__(self, is_compiled):
        self.is_compiled, self.sent, self.batches = is_compiled, [], 0

    def on_train_start(self, trainer, pl_module):
        wrapped = trainer.strategy.model
        assert isinstance(wrapped, DistributedDataParallel)
        assert wrapped.module is pl_module, "DDP wraps what holds the compiled parts, not the other way about"
        assert bool(compiled_regions(wrapped.module)) == self.is_compiled
        wrapped.register_comm_hook(self.sent, _counted)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.batches += 1
        if self.batches % ACCUMULATED:
            assert not self.sent, "ranks talked within a step"
            return
        assert self.sent, "ranks did not talk at its end"
        assert len(self.sent) == len(set(self.sent)), "a bucket went twice"
        self.sent.clear()

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        weights = [weight for weight in pl_module.parameters() if weight.grad is not None]
        inside = [w for w in weights if w.grad.untyped_storage().nbytes() > w.grad.nbytes]
        assert not weights or len(inside) > len(weights) / 2, "gradients are copies of the buckets"


def _counted(sent, bucket):
    sent.append(bucket.index())
    return allreduce_hook(None, bucket)


@pytest.mark.slow
def test_compiled_ranks_talk_once_per_step_and_learn_what_plain_ones_do(tmp_path):
    base = str(build_base(tmp_path / "base"))
    trained = []
    for compilation in (None, Compilation(backend="aot_eager", dynamic=False)):
        estimator = SingleStepEstimator(
            StableDiffusion(base, compile=compilation),
            Depth(),
            optimizer=lambda p: torch.optim.SGD(p, lr=1.0),
            warmup_steps=0,
            gradient_clip_norm=None,
        )
        before = torch.nn.utils.parameters_to_vector(estimator.network.unet.parameters()).detach().clone()
        Trainer(
            accelerator="cpu",
            devices=2,
            strategy=DDPStrategy(start_method="fork", timeout=timedelta(seconds=120), gradient_as_bucket_view=True),
            max_steps=STEPS,
            accumulate_grad_batches=ACCUMULATED,
            callbacks=[Buckets(compilation is not None)],
            **QUIET,
        ).fit(estimator, TwoBatches())
        after = torch.nn.utils.parameters_to_vector(estimator.network.unet.parameters()).detach()
        trained.append(after - before)
    assert trained[0].norm() > 0
    assert (trained[1] - trained[0]).norm() < 1e-4 * trained[0].norm()
