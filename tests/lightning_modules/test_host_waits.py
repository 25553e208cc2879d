"""A training step queues its work and never asks the device for a number, or the GPU would run dry between steps."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from geometry import modalities
from lightning_modules import (
    Depth,
    DiffusionEstimator,
    Normals,
    PretrainedNetwork,
    SeveralTasks,
    SingleStepEstimator,
    StableDiffusion,
)
from lightning_modules.losses import AngularLoss, ScaleShiftInvariantLoss
from lightning_modules.losses.auxiliary import GradientMatching, ImageReconstruction, LatentConsistency
from lightning_modules.losses.base import Loss
from lightning_modules.losses.feature_alignment import FeatureAlignment, FeatureMatching
from lightning_modules.losses.frequency import FourierLoss, WaveletLoss
from lightning_modules.losses.normalized import HuberGradient, NormalizedGradientL1, NormalizedL1, NormalizedMSE
from lightning_modules.losses.pixel import ModalityLoss
from lightning_modules.losses.scheduled import Scheduled
from lightning_modules.losses.sink import SinkLoss
from lightning_modules.networks.lora import LoRA
from lightning_modules.networks.task_switch import TaskSwitch
from lightning_modules.training.ema import ExponentialMovingAverage
from tests.helpers.host_waits import Waits
from tests.helpers.labelled_bases import build_geowizard, build_lotus
from tests.helpers.tiny import build_base, make_batch
from tests.lightning_modules.losses.test_feature_alignment import LAYER, WIDTH, build_teacher
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bases, and a teacher, that are written when they are first asked for."""
    place = tmp_path_factory.mktemp("bases")
    makers = {"base": build_base, "lotus": build_lotus, "geowizard": build_geowizard, "teacher": build_teacher}
    makers |= {kind: lambda path, kind=kind: write_base(path, kind) for kind in KINDS}

    def written(name):
        if not (place / name).exists():
            makers[name](place / name)
        return str(place / name)

    return written


@pytest.fixture(scope="module")
def base(folder):
    return folder("base")


def waits_of_gradients(estimator, monkeypatch, size=16):
    """What a micro-batch waited for on a device: tensors without memory stand for those of a GPU."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())  # it knows no such device
    for loss in estimator.task.losses:
        loss.attach(estimator.network)
    estimator.to("meta").network.train()
    batch = make_batch(height=size, width=size).to("meta")
    estimator.training_loss(batch, [0, 1])  # the first time, a model brings constants of its own to the device
    with Waits("meta") as waits:
        loss, extras = estimator.training_loss(batch, [0, 1])
        estimator.step_curves.add(loss, "tiny", extras)
        (loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)).backward()
    return waits.found


def waits_of_steps(estimator, size=16):
    """What two whole steps waited for, in main memory: values that were asked for, and shapes that depend on them."""
    estimator.network.train()
    batch = make_batch(height=size, width=size)
    optimizer = estimator.make_optimizer(weight for weight in estimator.parameters() if weight.requires_grad)
    with Waits() as waits:
        for number in range(2):
            loss, extras = estimator.training_loss(batch, [0, 1])
            estimator.step_curves.add(loss, "tiny", extras)
            loss.backward()
            estimator.gradient_guard.apply(optimizer, number, None, [loss.detach()])
            optimizer.step()
            optimizer.zero_grad()
    return waits.found


# Of depth, unless it says normals. Every loss of the package must be here: a test counts.
LOSSES = {
    "depth": lambda teacher: Depth(),
    "depth, all options": lambda teacher: Depth(
        ScaleShiftInvariantLoss(positive_scale=True, normalize_target=True, reduction="image")
    ),
    "normals": lambda teacher: Normals(),
    "normals by image": lambda teacher: Normals(AngularLoss(reduction="image")),
    "plain": lambda teacher: Normals(ModalityLoss(modalities.Normals())),
    "gradients": lambda teacher: Depth(extra_losses=[GradientMatching(), NormalizedGradientL1(), HuberGradient()]),
    "normalised": lambda teacher: Normals(extra_losses=[NormalizedL1(), NormalizedMSE(), GradientMatching()]),
    "frequencies": lambda teacher: Depth(extra_losses=[FourierLoss(), WaveletLoss()]),
    "sink": lambda teacher: Depth(extra_losses=[SinkLoss()]),
    "scheduled": lambda teacher: Depth(extra_losses=[Scheduled(NormalizedL1(), [0, 10], [1.0, 0.0])]),
    "feature alignment": lambda teacher: Depth(
        extra_losses=[FeatureAlignment(**LAYER, teacher=teacher, teacher_channels=WIDTH, input_size=32)]
    ),
    "feature alignment, all options": lambda teacher: Normals(
        extra_losses=[
            FeatureAlignment(**LAYER, teacher=teacher, teacher_channels=WIDTH, input_size=32, subject="image"),
            FeatureAlignment(
                **LAYER,
                teacher=teacher,
                teacher_channels=WIDTH,
                input_size=32,
                similarity="kl",
                projector="mlp",
                spatial_gamma=0.7,
            ),
        ]
    ),
    "feature matching": lambda teacher: Depth(extra_losses=[FeatureMatching(teacher, WIDTH, input_size=32)]),
}
# Terms between latents, which the estimator has.
BETWEEN_LATENTS = {LatentConsistency, ImageReconstruction}


@pytest.mark.parametrize("name", LOSSES)
def test_no_loss_makes_the_host_wait(folder, name, monkeypatch):
    network = StableDiffusion(folder("base"))
    estimator = SingleStepEstimator(network, LOSSES[name](folder("teacher")), LatentConsistency())
    assert waits_of_gradients(estimator, monkeypatch) == []


def test_every_loss_is_looked_at(folder):
    looked_at = {type(loss) for make in LOSSES.values() for loss in make(folder("teacher")).losses} | BETWEEN_LATENTS
    assert {kind for kind in all_below(Loss) if kind.__module__.startswith("lightning_modules.")} == looked_at


def all_below(kind):
    """The classes below one that can be made."""
    below = [*kind.__subclasses__(), *(each for under in kind.__subclasses__() for each in all_below(under))]
    return {each for each in below if not each.__abstractmethods__}


NETWORKS = {
    "recomputed": {"unet_checkpointing": True, "decoder_checkpointing": True},
    "adapters": {"lora": LoRA(2)},
    "a decoder that trains": {"train_decoder": True},
    "noise": {"noise": "gaussian"},
    "pyramid noise": {"noise": "pyramid"},
    "channels last": {"channels_last": True},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_no_option_of_the_network_makes_the_host_wait(base, name, monkeypatch):
    estimator = SingleStepEstimator(StableDiffusion(base, **NETWORKS[name]), Depth(), LatentConsistency())
    assert waits_of_gradients(estimator, monkeypatch) == []


@pytest.mark.parametrize("lora", [None, LoRA(2)], ids=["whole", "adapters"])
def test_no_whole_step_makes_the_host_wait(base, lora):
    network = StableDiffusion(base, vae_precision="bfloat16", channels_last=True, lora=lora)
    assert waits_of_steps(SingleStepEstimator(network, Depth(), LatentConsistency())) == []


def test_several_tasks_do_not_make_the_host_wait(folder, monkeypatch):
    switch = TaskSwitch(["normals", "depth"], joint=True, domain="indoor", domains={"tiny": "outdoor"})
    network = StableDiffusion(folder("geowizard"), switch=switch)
    estimator = SingleStepEstimator(network, SeveralTasks([Depth(), Normals()]), LatentConsistency())
    assert waits_of_gradients(estimator, monkeypatch) == []


def test_an_image_to_reconstruct_does_not_make_the_host_wait(folder, monkeypatch):
    network = StableDiffusion(
        folder("lotus"), noise="none", prediction_type="sample", switch=TaskSwitch(["annotation", "image"])
    )
    estimator = SingleStepEstimator(network, Depth(), LatentConsistency(), ImageReconstruction())
    assert waits_of_gradients(estimator, monkeypatch) == []


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("diffuses", [False, True], ids=["single step", "diffusion"])
def test_no_family_makes_the_host_wait(folder, kind, diffuses, monkeypatch):
    network = PretrainedNetwork(folder(kind), "concatenated")
    estimator = (DiffusionEstimator if diffuses else SingleStepEstimator)(network, Depth())
    assert waits_of_gradients(estimator, monkeypatch, 64) == []


def test_a_diffusion_estimator_does_not_make_the_host_wait(base, monkeypatch):
    assert waits_of_gradients(DiffusionEstimator(StableDiffusion(base), Depth()), monkeypatch) == []


def test_a_base_in_4_bits_does_not_make_the_host_wait(folder):
    network = PretrainedNetwork(folder("flux_kontext"), "image", lora=LoRA(2), quantization="nf4")
    assert waits_of_steps(SingleStepEstimator(network, Depth()), 64) == []


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_of_the_weights_makes_no_step_wait(base, warmup):
    estimator = SingleStepEstimator(StableDiffusion(base), Depth())
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


ASKING = {
    "a number": lambda t: t.item(),
    "a decision": lambda t: bool(t > 0),
    "a mask": lambda t: torch.zeros(1)[t[None] > 0],
    "what is set by a mask": lambda t: torch.zeros(1).index_put_((t[None] > 0,), t),
    "numbers of the host": lambda t: t.new_tensor([1.0, 2.0]),
    "a tensor of the host": lambda t: torch.tensor([1.0], device=t.device),
    "places": lambda t: torch.zeros(3)[[0, 1]],
}


@pytest.mark.parametrize("name", ASKING)
def test_a_wait_would_be_noticed(name):
    with Waits() as waits:
        ASKING[name](torch.tensor(1.0))
    assert waits.found


def test_a_copy_would_be_noticed_unless_the_host_goes_on():
    for copy in (lambda: torch.ones(3).to("meta"), lambda: torch.empty(3, device="meta").copy_(torch.ones(3))):
        with Waits("meta") as waits:
            copy()
        assert waits.found
    with Waits("meta") as waits:
        torch.ones(3).to("meta", non_blocking=True)
    assert not waits.found
    with Waits("meta") as waits, pytest.raises(NotImplementedError):
        torch.ones(3, device="meta").to("cpu", non_blocking=True)
    assert waits.found


@pytest.mark.gpu
def test_no_step_waits_for_a_gpu(base):
    estimator = SingleStepEstimator(StableDiffusion(base), Depth()).cuda()
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
