"""Functions of depth that a network can learn: what is undone, and what cannot be."""

import math

import pytest
import torch

from geometry.batch import Target
from geometry.errors import InputError
from geometry.modalities import Depth
from geometry.parameterization import FARTHEST_M, Parameterization

NAMES = ["linear", "log", "sqrt", "disparity", "sqrt_disparity"]


def scene(num_images=2, seed=0):
    """Depths of 1 to 40 metres, a tenth of them unknown."""
    generator = torch.Generator().manual_seed(seed)
    values = 1 + 39 * torch.rand(num_images, 1, 12, 16, generator=generator) ** 3
    mask = torch.rand(values.shape, generator=generator) > 0.1
    return Target(values * mask, mask)


def of_known(values, target):
    return values[target.mask]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_undone_is_the_depth_that_was_there(name):
    depth = torch.tensor([0.01, 0.5, 4.0, 80.0], dtype=torch.float64)
    for eps_m in (0.0, 1e-6, 0.1):
        curve = Parameterization(name, eps_m)
        torch.testing.assert_close(curve.undo(curve.apply(depth)), depth)


def test_the_functions_are_those_of_the_docstring():
    values = [Parameterization(name, eps_m=0.0).apply(torch.tensor(4.0)).item() for name in NAMES]
    assert values == pytest.approx([4, math.log(4), 2, 0.25, 0.5])


@pytest.mark.parametrize("name", NAMES[1:])
def test_values_that_no_depth_has_become_a_limit_and_never_nan(name):
    depth = Parameterization(name).undo(torch.tensor([-1e4, -1.0, 0.0, 1e-9, 1e4]))
    assert depth.isfinite().all() and (depth >= 0).all() and (depth <= FARTHEST_M * 1.001).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clip", [True, False])
def test_a_perfect_prediction_scaled_and_shifted_comes_back_in_metres(name, clip):
    target = scene()
    modality = Depth(name, low_quantile=0, high_quantile=1, clip_target=clip, clip_prediction=clip)
    perfect = modality.from_image(modality.to_image(target))
    for prediction in (perfect, 0.3 * perfect - 2):
        aligned = modality.align(prediction.double(), target)
        torch.testing.assert_close(
            of_known(aligned, target).float(), of_known(target.values, target), rtol=1e-4, atol=0
        )
        assert modality.error(aligned, target)[target.mask].max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_near_is_dark_in_the_image_for_the_vae_unless_the_function_falls_and_unknown_is_far(name):
    target = scene()
    image, falls = Depth(name).to_image(target), "disparity" in name
    near, far = of_known(target.values, target) < 1.2, of_known(target.values, target) > 30
    known = of_known(image[:, :1], target)
    assert (known[near].mean() > known[far].mean()) == falls
    assert (image[:, :1][~target.mask] == (-1 if falls else 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_published_depth_is_exact_where_the_range_is_the_one_that_was_assumed(name):
    target = Target(torch.linspace(2, 20, 50).reshape(1, 1, 5, 10), torch.ones(1, 1, 5, 10, dtype=torch.bool))
    modality = Depth(name, low_quantile=0, high_quantile=1, eps_m=0.0, far_over_near=10)
    published = modality.publish(modality.from_image(modality.to_image(target)))
    torch.testing.assert_close(published, (target.values - 2) / 18, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_points_are_exact_for_any_range_that_is_given_later(name):
    target = Target(torch.linspace(3, 9, 50).reshape(1, 1, 5, 10), torch.ones(1, 1, 5, 10, dtype=torch.bool))
    modality = Depth(name, low_quantile=0, high_quantile=1, eps_m=0.0, far_over_near=50)
    published = modality.publish(modality.from_image(modality.to_image(target)))
    torch.testing.assert_close(3 + 6 * modality.stretch(published, 3.0), target.values, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_parts_of_an_image_are_aligned_where_they_differ_by_scale_and_shift(name):
    modality, share = Depth(name), torch.linspace(0, 1, 20)[None, None, None]
    parts = [modality.publish(scale * (2 * share - 1)) for scale in (1.0, 0.5)]
    whole, half = (modality.to_affine(part) for part in parts)
    torch.testing.assert_close(half - 0.5, 0.5 * (whole - 0.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(modality.from_affine(whole), parts[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_members_of_an_ensemble_that_agree_up_to_scale_and_shift_are_one(name):
    target = scene(1)
    modality = Depth(name, low_quantile=0, high_quantile=1)
    perfect = modality.from_image(modality.to_image(target))
    combined = modality.ensemble(torch.stack([perfect, 0.5 * perfect + 0.2, 0.8 * perfect - 0.1]))
    assert modality.error(modality.align(combined, target), target)[target.mask].max() < 0.02


def test_the_meaning_says_what_has_been_undone():
    assert Depth().describe_published() == Depth.meaning and Depth().describe_stock_mismatch() == ""
    assert "log" in Depth("log").describe_published() and "10 times" in Depth("log").describe_published()
    assert "does not undo parameterization: disparity" in Depth("disparity").describe_stock_mismatch()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameterization": "cube"}, "no parameterization 'cube'; choose one of linear, log"),
        ({"low_quantile": 0.9, "high_quantile": 0.1}, "low_quantile < high_quantile"),
        ({"eps_m": -1.0}, "eps_m of at least 0"),
        ({"far_over_near": 1.0}, "far_over_near"),
    ],
)
def test_impossible_options_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message):
        Depth(**options)
