from contextlib import nullcontext

import pytest
import torch

from geometry.errors import InputError
from lightning_modules.training.gradients import GradientGuard

OPTIMIZERS = {
    "fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "plain": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=False),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
}


def make(name, max_norm=1.0, max_skips=3):
    weights = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    optimizer = OPTIMIZERS[name](weights)
    return weights, optimizer, GradientGuard(max_norm, max_skips)


def step(weights, optimizer, guard, gradient, number=0):
    for weight in weights:
        weight.grad = torch.full_like(weight, gradient)
    guard.note_source("indoor", [f"sample-{number}"])
    norm = guard.apply(optimizer, number)
    optimizer.step()
    return norm


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_large_gradients_are_scaled_to_the_norm_and_small_ones_left_alone(name):
    weights, optimizer, guard = make(name, max_norm=2.0)
    norm = step(weights, optimizer, guard, 30.0)
    assert norm.item() == pytest.approx(30 * 5**0.5)
    assert torch.cat([w.grad for w in weights]).norm().item() == pytest.approx(2.0, rel=1e-4)
    step(weights, optimizer, guard, 0.1)
    assert torch.cat([w.grad for w in weights]).norm().item() == pytest.approx(0.1 * 5**0.5)


def test_none_clips_nothing():
    weights, optimizer, guard = make("fused", max_norm=None)
    step(weights, optimizer, guard, 30.0)
    assert torch.cat([w.grad for w in weights]).norm().item() == pytest.approx(30 * 5**0.5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_step_leaves_weights_and_optimiser_as_if_it_had_never_been(name, bad):
    trained = []
    for gradients in ([1.0, bad, 0.5], [1.0, 0.5]):
        weights, optimizer, guard = make(name)
        with pytest.warns(UserWarning, match="sample-1") if bad in gradients else nullcontext():
            for number, gradient in enumerate(gradients):
                step(weights, optimizer, guard, gradient, number)
            guard.settle()
        trained.append(torch.cat(weights).detach())
        assert guard.num_skipped == (bad in gradients)
    assert torch.equal(*trained)


def test_one_bad_value_among_many_is_enough():
    weights, optimizer, guard = make("fused")
    weights[0].grad, weights[1].grad = torch.tensor([1.0, torch.nan, 1.0]), torch.ones(2)
    guard.apply(optimizer, 0)
    optimizer.step()
    assert all((weight == 1).all() for weight in weights)


@pytest.mark.parametrize("name", ["fused", "plain"])
@pytest.mark.filterwarnings("ignore:step")
def test_several_skips_in_a_row_stop_the_run_and_name_the_samples(name):
    weights, optimizer, guard = make(name, max_skips=3)
    for number, gradient in enumerate([torch.nan, torch.nan, 1.0, torch.nan, torch.nan]):
        step(weights, optimizer, guard, gradient, number)
    step(weights, optimizer, guard, torch.nan, 5)
    with pytest.raises(InputError, match=r"3 steps in a row .* step 5 \(indoor: sample-5\)"):
        guard.settle()
    assert guard.num_skipped == 5


@pytest.mark.filterwarnings("ignore:step")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_of_a_scaled_loss_are_clipped_at_their_true_size(name):
    weights, optimizer, guard = make(name, max_norm=1.0)
    reference, reference_optimizer, reference_guard = make(name, max_norm=1.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for gradient in (3.0, 0.1):
        for weight in weights:
            weight.grad = torch.full_like(weight, gradient * scaler.get_scale())
        scaler.scale(torch.zeros(()))  # makes the scale
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            scaler.unscale_(optimizer)  # as Lightning does
        norm = guard.apply(optimizer, 0, scaler)
        scaler.step(optimizer)
        scaler.update()
        assert norm.item() == pytest.approx(step(reference, reference_optimizer, reference_guard, gradient).item())
    assert torch.allclose(torch.cat(weights), torch.cat(reference), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:step")
def test_a_loss_scale_that_is_still_being_looked_for_does_not_stop_the_run():
    weights, optimizer, guard = make("fused", max_skips=2)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(10):
        scaler.scale(torch.zeros(()))
        for weight in weights:
            weight.grad = torch.full_like(weight, torch.inf)
        guard.apply(optimizer, 0, scaler)
        scaler.step(optimizer)
        scaler.update()
    guard.settle()
    assert all((weight == 1).all() for weight in weights)


def zero_step(weights, optimizer, guard, number, loss=1.0, gradient=0.0):
    for weight in weights:
        weight.grad = torch.full_like(weight, gradient)
    guard.note_source("indoor", [f"sample-{number}"])
    guard.apply(optimizer, number, losses=[torch.tensor(0.0), torch.tensor(loss)])
    optimizer.step()


@pytest.mark.filterwarnings("ignore:step")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradients_of_exactly_zero_in_a_row_stop_the_run_and_name_the_samples(name):
    weights, optimizer, guard = make(name, max_skips=3)
    for number in range(3):
        zero_step(weights, optimizer, guard, number)
    with pytest.raises(InputError, match=r"3 steps in a row were exactly 0 .* step 2 \(indoor: sample-2\)"):
        guard.settle()
    assert guard.num_zero == 2
    assert guard.num_skipped == 0


def test_the_second_step_without_a_gradient_is_counted_and_named():
    weights, optimizer, guard = make("fused")
    zero_step(weights, optimizer, guard, 0)
    guard.settle()
    assert guard.num_zero == 0
    zero_step(weights, optimizer, guard, 1)
    with pytest.warns(UserWarning, match="step 1 taught nothing.*indoor: sample-1"):
        guard.settle()
    assert guard.num_zero == 1


@pytest.mark.parametrize("loss_and_gradient", [(0.0, 0.0), (1.0, 1e-15)])
def test_a_loss_of_zero_and_a_tiny_gradient_are_no_alarm(loss_and_gradient):
    weights, optimizer, guard = make("fused", max_skips=2)
    for number in range(4):
        zero_step(weights, optimizer, guard, number, *loss_and_gradient)
    guard.settle()
    assert guard.num_zero == 0


@pytest.mark.filterwarnings("ignore:step")
def test_a_gradient_in_between_begins_the_count_anew_and_a_skipped_step_does_not():
    weights, optimizer, guard = make("fused", max_skips=3)
    for number, gradient in enumerate([0.0, 0.0, 1.0, 0.0, torch.nan, 0.0]):
        zero_step(weights, optimizer, guard, number, gradient=gradient)
    guard.settle()
    assert (guard.num_zero, guard.num_skipped) == (2, 1)


def test_a_trained_tensor_without_a_gradient_is_named_at_the_first_step_and_a_zero_is_one():
    weights, optimizer, guard = make("fused")
    guard.watch([("network.seen", weights[0]), ("network.forgotten", weights[1])])
    weights[0].grad = torch.zeros(3)
    with pytest.warns(UserWarning, match=r"1 of 2 trained tensors got no gradient .*: network\.forgotten$"):
        guard.apply(optimizer, 0)
    guard.apply(optimizer, 1)  # says it once


def test_a_loss_that_reaches_no_trained_tensor_ends_the_run():
    weights, optimizer, guard = make("fused")
    guard.watch([("network.a", weights[0]), ("network.b", weights[1])])
    with pytest.raises(InputError, match=r"none of the 2 trained tensors \(network\.a \.\.\.\) got a gradient"):
        guard.apply(optimizer, 0)
