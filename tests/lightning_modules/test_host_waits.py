"""A training step queues its work and never asks the device for a number, or the GPU would run dry between steps."""

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules import Depth, Normals, SingleStepEstimator, StableDiffusion
from lightning_modules.losses import AngularLoss, ScaleShiftInvariantLoss
from lightning_modules.losses.auxiliary import GradientMatching, LatentConsistency
from lightning_modules.networks.lora import LoRA
from lightning_modules.training.ema import ExponentialMovingAverage
from tests.helpers.tiny import build_base, make_batch

# What makes the host wait for a GPU: the value of a tensor, or a shape that depends on values.
WAITING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten._unique2.default,
}


class Waits(TorchDispatchMode):
    """Notes the operations for which the host would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        indexed = operation is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if operation in WAITING or indexed:
            self.found.append(str(operation))
        return operation(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


TASKS = {
    "depth": lambda: Depth(),
    "depth, all options": lambda: Depth(
        ScaleShiftInvariantLoss(positive_scale=True, normalize_target=True, reduction="image"), [GradientMatching()]
    ),
    "normals": lambda: Normals(),
    "normals by image": lambda: Normals(AngularLoss(reduction="image")),
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_nothing_in_a_step_makes_the_host_wait_for_the_device(base, name, checkpointing):
    network = StableDiffusion(str(base), unet_checkpointing=checkpointing, decoder_checkpointing=checkpointing)
    estimator = SingleStepEstimator(network, TASKS[name]())
    optimizer = estimator.make_optimizer(network.unet.parameters())
    batch = make_batch(height=16, width=16)
    with Waits() as waits:
        loss, _ = estimator.training_loss(batch, [0, 1])
        estimator.step_curves.add(loss, "tiny", {})
        loss.backward()
        estimator.gradient_guard.apply(optimizer, 0)
        optimizer.step()
        optimizer.zero_grad()
    assert waits.found == []


OPTIONS = {
    "adapters": {"lora": LoRA(2)},
    "a decoder that trains": {"train_decoder": True},
    "noise": {"noise": "gaussian"},
    "channels last, bfloat16": {"channels_last": True, "vae_precision": "bfloat16"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_of_the_network_makes_the_host_wait(base, name):
    estimator = SingleStepEstimator(StableDiffusion(str(base), **OPTIONS[name]), Depth(), LatentConsistency())
    weights = [weight for weight in estimator.parameters() if weight.requires_grad]
    optimizer = estimator.make_optimizer(iter(weights))
    batch = make_batch(height=16, width=16)
    with Waits() as waits:
        estimator.training_loss(batch, [0, 1])[0].backward()
        estimator.gradient_guard.apply(optimizer, 0)
        optimizer.step()
        optimizer.zero_grad()
    assert waits.found == []


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_of_the_weights_makes_no_step_wait(base, warmup):
    estimator = SingleStepEstimator(StableDiffusion(str(base)), Depth())
    average = ExponentialMovingAverage(decay=0.9, warmup=warmup)
    trainer = SimpleNamespace(global_step=0, log_every_n_steps=50, max_steps=-1)
    average.on_fit_start(trainer, estimator)
    average.on_train_start(trainer, estimator)
    before = average._average["network.unet.conv_in.weight"].clone()
    with torch.no_grad():
        estimator.network.unet.conv_in.weight.add_(1)
    trainer.global_step = 1
    with Waits() as waits:
        average.on_train_batch_end(trainer, estimator, None, None, 0)
    assert waits.found == []
    assert not torch.equal(average._average["network.unet.conv_in.weight"], before), "nothing was averaged"


@pytest.mark.parametrize("ask", [lambda t: t.item(), lambda t: bool(t > 0), lambda t: torch.zeros(1)[t[None] > 0]])
def test_a_wait_would_be_noticed(ask):
    with Waits() as waits:
        ask(torch.tensor(1.0))
    assert waits.found


@pytest.mark.gpu
def test_no_step_waits_for_a_gpu(base):
    estimator = SingleStepEstimator(StableDiffusion(str(base)), Depth()).cuda()
    optimizer = estimator.make_optimizer(estimator.network.unet.parameters())
    batch = make_batch().to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(2):
            estimator.training_loss(batch, [0, 1])[0].backward()
            estimator.gradient_guard.apply(optimizer, number)
            optimizer.step()
            optimizer.zero_grad()
    finally:
        torch.cuda.set_sync_debug_mode("default")
