"""Metres from a few known pixels: exact on exact scenes, whatever some of the anchors say."""

import pytest
import torch

from geometry.alignment.anchored import fit_anchors
from geometry.errors import InputError
from geometry.parameterization import Parameterization

NAMES = ["linear", "log", "sqrt", "disparity", "sqrt_disparity"]


def scene(name, count=40, seed=0):
    """Return depth in metres, and what a perfect network of a parameterisation says of it, larger for the farther."""
    depth = 1 + 30 * torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    values = Parameterization(name).apply(depth)
    values = -values if Parameterization(name).falls else values
    return depth, (values - values.min()) / (values.max() - values.min())


@pytest.mark.parametrize("name", NAMES)
def test_metres_are_exact_in_spite_of_wrong_anchors(name):
    depth, prediction = scene(name)
    anchors = depth.clone()
    anchors[::3] = depth.flip(0)[::3] * 3 + 5  # a third of them is far off
    wrong = (anchors / depth - 1).abs() > 0.2
    fit = fit_anchors(prediction, anchors, Parameterization(name))
    assert torch.allclose(fit(prediction), depth, rtol=1e-6)
    assert not fit.used[wrong].any() and fit.used[~wrong].all()


@pytest.mark.parametrize("name", NAMES)
def test_noise_within_the_tolerance_is_averaged(name):
    depth, prediction = scene(name, 400)
    noise = 1 + 0.03 * torch.randn(400, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    fit = fit_anchors(prediction, depth * noise, Parameterization(name))
    assert float((fit(prediction) / depth - 1).abs().median()) < 0.01
    assert fit.used.double().mean() > 0.95


def test_the_fit_has_its_two_numbers_in_the_space_of_the_network():
    depth, prediction = scene("log")
    right = fit_anchors(prediction, depth, Parameterization("log"))
    wrong = fit_anchors(prediction, depth, Parameterization("linear"))
    assert right.used.all() and not wrong.used.all()


def test_the_order_of_anchors_beyond_the_draws_and_the_seed_decide_nothing_on_an_exact_scene():
    depth, prediction = scene("linear")
    fits = [fit_anchors(prediction, depth, Parameterization(), seed=seed) for seed in range(3)]
    assert all(torch.allclose(fit.scale, fits[0].scale) for fit in fits)


@pytest.mark.parametrize(
    ("prediction", "depth", "problem"),
    [
        ([0.5], [2.0], "two anchors at least"),
        ([0.5, 0.5, 0.5], [2.0, 3.0, 4.0], "different predicted depth"),
        ([0.0, 0.5, 1.0], [9.0, 5.0, 1.0], "contradict the prediction"),
    ],
)
def test_anchors_that_say_nothing_or_the_opposite_are_refused(prediction, depth, problem):
    with pytest.raises(InputError, match=problem):
        fit_anchors(torch.tensor(prediction), torch.tensor(depth), Parameterization())
