"""SinkLoss beside its formula, beside exact assignments, and in what it must not care about."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from geometry.errors import InputError
from lightning_modules.losses import sink as sink_loss
from lightning_modules.losses.sink import SinkLoss


def block(side=3, seed=0, unknown=0.0):
    generator = torch.Generator().manual_seed(seed)
    prediction, target = (torch.rand(1, 1, side, side, generator=generator) for _ in range(2))
    return prediction, target, torch.rand(1, 1, side, side, generator=generator) >= unknown


def by_formula(prediction, target, mask, tau=0.1, num_iterations=5, far=1e6):
    """One block of one image in float64, pair by pair costs of 1e6 and all, from the paper's words."""
    p, d, m = (image.flatten().double().numpy() for image in (prediction, target, mask))
    cost = np.abs(p[:, None] - d[None])
    pairs = m[:, None] * m[None]
    log_plan = -np.where(pairs > 0, cost, far) / tau
    for _ in range(num_iterations):
        for axis in (1, 0):
            highest = log_plan.max(axis=axis, keepdims=True)
            log_plan = log_plan - highest - np.log(np.exp(log_plan - highest).sum(axis=axis, keepdims=True))
    plan = np.exp(log_plan)
    return (plan * cost * pairs).sum() / (plan * pairs).sum()


@pytest.mark.parametrize("unknown", [0.0, 0.3, 0.7])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_block_costs_what_the_formula_says(seed, unknown):
    images = block(5, seed, unknown)
    assert SinkLoss()(*images).item() == pytest.approx(by_formula(*images), rel=2e-4)


@pytest.mark.parametrize("unknown", [0.0, 0.4])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_hard_plan_is_the_exact_assignment(seed, unknown):
    prediction, target, mask = block(3, seed, unknown)
    p, d = prediction[mask].double().numpy(), target[mask].double().numpy()
    cost = np.abs(p[:, None] - d[None])
    exact = cost[linear_sum_assignment(cost)].mean()
    loss = SinkLoss(block_size=3, tau=1e-3, num_iterations=2000)(prediction.double(), target.double(), mask)
    assert loss.item() == pytest.approx(exact, abs=1e-3)


def test_where_the_values_of_a_block_lie_does_not_matter_and_across_blocks_it_does():
    _, target, mask = block(10, unknown=0.0)
    shuffled = target.clone()
    shuffled[..., :5, :5] = target[..., :5, :5].flatten()[torch.randperm(25)].reshape(5, 5)
    moved = target.roll(5, dims=3)
    same, within, across = (SinkLoss()(image, target, mask).item() for image in (target, shuffled, moved))
    assert within == pytest.approx(same, rel=1e-5) and across > same * 1.01


def test_the_loss_is_the_mean_over_blocks_with_a_known_pixel():
    parts = [block(5, seed, unknown=0.3) for seed in range(3)]
    parts.append((*parts[0][:2], torch.zeros_like(parts[0][2])))
    prediction, target, mask = (torch.cat(images, dim=3) for images in zip(*parts, strict=True))
    expected = np.mean([by_formula(*part) for part in parts[:3]])
    assert SinkLoss()(prediction, target, mask).item() == pytest.approx(expected, rel=2e-4)


def test_an_image_that_is_no_multiple_of_the_block_loses_no_pixel():
    prediction, target, mask = block(7)
    padded = [torch.nn.functional.pad(image, (0, 3, 0, 3)) for image in (prediction, target, mask)]
    assert SinkLoss()(prediction, target, mask).item() == pytest.approx(SinkLoss()(*padded).item(), rel=1e-6)
    changed = prediction.clone()
    changed[..., -1, -1] += 1
    assert SinkLoss()(changed, target, mask) > SinkLoss()(prediction, target, mask)


def test_many_blocks_are_computed_in_parts_to_the_same_loss_and_gradient(monkeypatch):
    images = [torch.cat([image] * 2) for image in block(20, unknown=0.2)]
    found = []
    for pairs in (2**21, 3 * 5**4):
        monkeypatch.setattr(sink_loss, "_PAIRS_AT_A_TIME", pairs)
        prediction = images[0].clone().requires_grad_()
        loss = SinkLoss()(prediction, *images[1:])
        loss.backward()
        found.append((loss.detach(), prediction.grad))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("options", [{"block_size": 1}, {"tau": 0.0}, {"num_iterations": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(InputError, match="SinkLoss needs block_size >= 2"):
        SinkLoss(**options)
