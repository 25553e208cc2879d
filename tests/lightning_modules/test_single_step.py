"""The estimator against a plain transcription of the formulas, written without the project's code."""

import math

import pytest
import torch

from lightning_modules import Depth, Normals, SingleStepEstimator, StableDiffusion
from lightning_modules.losses import AngularLoss, ScaleShiftInvariantLoss
from lightning_modules.losses.auxiliary import LatentConsistency
from lightning_modules.tasks import Task
from tests.helpers.tiny import build_base, make_batch
from tests.helpers.transcription import Reference, transcribed_step

PREDICTION_TYPES = ("v_prediction", "epsilon", "sample")
NOISES = ("zeros", "gaussian", "pyramid", "none")
SEEDS = [11, 12]


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return {kind: build_base(tmp_path_factory.mktemp(kind), kind) for kind in PREDICTION_TYPES}


@pytest.fixture(scope="module", params=[(kind, noise) for kind in PREDICTION_TYPES for noise in NOISES], ids="-".join)
def network(request, bases):
    kind, noise = request.param
    network = StableDiffusion(str(bases[kind]), noise)
    return kind, noise, network, Reference(bases[kind], noise)


@pytest.mark.parametrize("task", [Depth, Normals])
def test_prediction_loss_and_gradients_are_those_of_the_paper(network, task: type[Task]):
    prediction_type, noise, network, reference = network
    batch = make_batch(height=16, width=24)
    prediction, loss = transcribed_step(reference, batch, prediction_type, noise, task is Depth, SEEDS)
    reference.unet.zero_grad()
    loss.backward()
    expected = (prediction, loss, {name: weight.grad for name, weight in reference.unet.named_parameters()})
    assert all(gradient.abs().sum() > 0 for gradient in expected[2].values())

    # The network in float64 leaves the rounding of the decoded image to float32. In float32 it amplifies its own
    # rounding. Worst cases measured: 2.4e-7, 1.3e-7, 2.4e-6 and 1.8e-5, 2.9e-7, 8.1e-5.
    for dtype, tolerances in ((torch.float64, (1e-6, 5e-7, 1e-5)), (torch.float32, (6e-5, 1e-6, 3e-4))):
        estimator = SingleStepEstimator(network.to(dtype), task())
        batch.image = batch.image.to(dtype)
        estimator.zero_grad()
        prediction = estimator(batch.image, SEEDS)
        loss, _ = estimator.training_loss(batch, SEEDS)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in network.unet.named_parameters()}
        assert relative_error(prediction, expected[0]) < tolerances[0]
        assert relative_error(loss, expected[1]) < tolerances[1]
        assert gradients.keys() == expected[2].keys()
        assert relative_error(flatten(gradients), flatten(expected[2])) < tolerances[2]


def flatten(gradients):
    return torch.cat([gradient.flatten().double() for gradient in gradients.values()])


def relative_error(value, expected):
    return ((value.double() - expected).norm() / expected.norm()).item()


def test_half_the_batch_gives_the_same_prediction_so_that_batch_size_changes_nothing(bases):
    batch = make_batch(num_images=2)
    estimator = SingleStepEstimator(StableDiffusion(str(bases["v_prediction"]), "pyramid"), Depth())
    with torch.no_grad():
        together = estimator(batch.image, SEEDS)
        alone = estimator(batch.image[1:], SEEDS[1:])
    assert torch.allclose(together[1:], alone, atol=1e-5)


@pytest.mark.parametrize(
    "task",
    [Normals(AngularLoss(reduction="image")), Depth(ScaleShiftInvariantLoss(reduction="image"))],
    ids=["normals", "depth"],
)
def test_accumulated_micro_batches_give_the_gradient_of_one_batch(bases, task):
    estimator = SingleStepEstimator(StableDiffusion(str(bases["v_prediction"])).double(), task)
    batch = make_batch(num_images=8, height=8, width=16)
    batch.image = batch.image.double()

    def gradient_of(size):
        estimator.zero_grad()
        for start in range(0, 8, size):
            loss, _ = estimator.training_loss(batch[start : start + size], [0] * size)
            (loss * size / 8).backward()
        return torch.cat([p.grad.flatten() for p in estimator.network.unet.parameters()])

    whole = gradient_of(8)
    for size in (1, 4):  # 1 x 8 and 4 x 2
        assert relative_error(gradient_of(size), whole) < 1e-6


def test_an_optimiser_step_is_that_of_adamw(bases):
    """Decoupled weight decay, bias correction, and the clipped gradient, written out for the first two updates."""
    estimator = SingleStepEstimator(StableDiffusion(str(bases["v_prediction"])).double(), Depth())
    weights = list(estimator.network.unet.parameters())
    optimizer = estimator.make_optimizer(weights)
    lr, decay, (beta1, beta2), epsilon = 3e-5, 0.01, (0.9, 0.999), 1e-8
    expected = torch.cat([weight.detach().flatten() for weight in weights])
    mean, square = torch.zeros_like(expected), torch.zeros_like(expected)
    for number in (1, 2):
        batch = make_batch(height=16, width=16, seed=number)
        batch.image = batch.image.double()
        optimizer.zero_grad()
        estimator.training_loss(batch, SEEDS)[0].backward()
        gradient = torch.cat([weight.grad.flatten() for weight in weights])
        gradient = gradient * min(1.0, 1.0 / (gradient.norm().item() + 1e-6))
        estimator.gradient_guard.apply(optimizer, number)
        optimizer.step()
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        update = (mean / (1 - beta1**number)) / ((square / (1 - beta2**number)).sqrt() + epsilon)
        expected = expected - lr * decay * expected - lr * update
        stepped = torch.cat([weight.detach().flatten() for weight in weights])
        assert relative_error(stepped, expected) < 1e-12


def test_the_latent_term_is_the_distance_to_the_encoded_truth_and_nothing_else_changes(bases):
    network = StableDiffusion(str(bases["v_prediction"]))
    batch = make_batch()
    batch.targets["depth"].mask[:] = True
    batch.targets["depth"].mask[0, :, :5] = False  # hides the first two rows of latents of the first image
    plain, _ = SingleStepEstimator(network, Depth()).training_loss(batch, SEEDS)
    estimator = SingleStepEstimator(network, Depth(), LatentConsistency(weight=2.0))
    loss, extras = estimator.training_loss(batch, SEEDS)

    truth = network.encode(estimator.task.target_image(batch)[0])
    squared = (network.predict_latent(batch.image, SEEDS) - truth).square().mean(dim=1)
    distance = torch.cat([squared[0, 2:].flatten(), squared[1].flatten()]).mean()
    assert extras["latent_consistency"].item() == pytest.approx(distance.item(), rel=1e-5)
    assert loss.item() == pytest.approx(plain.item() + 2 * distance.item(), rel=1e-5)
    assert not extras["latent_consistency"].requires_grad
    loss.backward()
    assert all(p.grad.isfinite().all() for p in network.unet.parameters())


def test_the_latent_term_alone_has_its_own_gradient_and_keeps_no_graph_of_the_decoder(bases):
    network = StableDiffusion(str(bases["v_prediction"]), "none")
    batch, decoded = make_batch(), []
    network.vae.decoder.register_forward_hook(lambda module, inputs, output: decoded.append(output.requires_grad))

    def gradient_of(weight):
        network.zero_grad()
        task = Depth(ScaleShiftInvariantLoss(weight=weight))
        loss, _ = SingleStepEstimator(network, task, LatentConsistency(weight=1.0)).training_loss(batch, SEEDS)
        loss.backward()
        return torch.cat([p.grad.flatten() for p in network.unet.parameters()])

    alone, with_pixels = gradient_of(0.0), gradient_of(1e-12)
    assert decoded == [False, True]
    assert relative_error(alone, with_pixels.double()) < 1e-5 and alone.norm() > 0


def test_a_base_of_the_noise_can_be_taken_to_predict_the_clean_latent(bases):
    batch = make_batch()
    taken = StableDiffusion(str(bases["epsilon"]), "none", zero_terminal_snr=True, prediction_type="sample")
    image = taken.encode(batch.image)
    output = taken.model_output(image, taken.timestep)
    assert torch.equal(taken.predict_latent(batch.image), output)
    assert taken.noise_process.scheduler.config["prediction_type"] == "sample", "exports go by it"


def test_perfect_latents_cost_nothing():
    latent = torch.randn(2, 4, 3, 3)
    assert LatentConsistency()(latent, latent, torch.ones(2, 1, 3, 3, dtype=torch.bool)) == 0


def test_alpha_of_sd2_is_that_of_its_noise_schedule(bases):
    network = StableDiffusion(str(bases["v_prediction"]))
    assert math.isclose(network.noise_process.last_alpha, 0.0047, abs_tol=5e-5)
    assert network.timestep.item() == 999
