import numpy as np
import pytest
import torch

from geometry.errors import InputError
from lightning_modules import Depth, Normals
from lightning_modules.losses import ScaleShiftInvariantLoss
from lightning_modules.losses.auxiliary import GradientMatching
from tests.helpers.tiny import make_batch


def plain_gradient_matching(prediction, target, mask, num_scales):
    """The formula in NumPy, pair by pair."""
    error = (prediction - target).numpy()
    total = 0.0
    for step in (2**number for number in range(num_scales)):
        changes = []
        for image, valid in zip(error[:, :, ::step, ::step], mask.numpy()[:, 0, ::step, ::step], strict=True):
            height, width = valid.shape
            for row in range(height):
                for column in range(width):
                    for other in ((row, column + 1), (row + 1, column)):
                        if other[0] < height and other[1] < width and valid[row, column] and valid[other]:
                            changes.append(np.abs(image[:, other[0], other[1]] - image[:, row, column]).mean())
        total += np.mean(changes)
    return total


@pytest.mark.parametrize("channels", [1, 3])
def test_gradient_matching_equals_the_formula(channels):
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 2, channels, 11, 14, generator=generator).double()
    mask = torch.rand(2, 1, 11, 14, generator=generator) < 0.8
    expected = plain_gradient_matching(prediction, target, mask, 3)
    assert GradientMatching(num_scales=3)(prediction, target, mask).item() == pytest.approx(expected, rel=1e-9)


def test_a_constant_offset_costs_nothing_and_a_blurred_edge_does():
    target = torch.zeros(1, 1, 16, 16)
    target[..., 8:] = 4.0
    blurred = target.clone()
    blurred[..., 7:9] = 2.0
    mask = torch.ones_like(target, dtype=torch.bool)
    assert GradientMatching()(target + 3, target, mask) == 0
    assert GradientMatching()(blurred, target, mask) > 0


def test_the_mean_of_image_means_weighs_images_alike():
    mask = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    mask[0, :, 2:] = False
    error = torch.zeros(2, 1, 8, 8)
    error[0, ..., ::2] = 1.0
    alone = GradientMatching(num_scales=1)(error[:1], torch.zeros(1, 1, 8, 8), mask[:1])
    both = GradientMatching(num_scales=1, reduction="image")(error, torch.zeros_like(error), mask)
    assert both.item() == pytest.approx(alone.item() / 2)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_what_the_mask_hides_never_leaks_into_the_term(poison):
    prediction, target = torch.randn(2, 2, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    mask = torch.rand(prediction.shape, generator=torch.Generator().manual_seed(2)) < 0.7
    clean = prediction.clone().requires_grad_()
    expected = GradientMatching()(clean, target, mask)
    expected.backward()
    dirty = torch.where(mask, prediction, poison).requires_grad_()
    term = GradientMatching()(dirty, torch.where(mask, target, poison), mask)
    term.backward()
    assert term.item() == expected.item()
    assert torch.equal(dirty.grad, clean.grad)


@pytest.mark.parametrize("size", [1, 12])
def test_without_a_valid_pair_the_term_is_zero_but_has_a_backward_pass(size):
    prediction = torch.randn(1, 1, size, size).requires_grad_()
    term = GradientMatching()(prediction, torch.zeros(1, 1, size, size), torch.zeros(1, 1, size, size).bool())
    term.backward()
    assert term == 0
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("task", [Depth, Normals])
def test_terms_are_weighted_added_and_reported_without_their_weight(task):
    batch = make_batch()
    prediction = torch.rand(2, 1 if task is Depth else 3, 32, 32, generator=torch.Generator().manual_seed(3))
    plain, extras = task().training_loss(prediction, batch)
    assert "gradient_matching" not in extras
    loss, extras = task(extra_losses=[GradientMatching(weight=3.0)]).training_loss(prediction, batch)
    assert extras["gradient_matching"] > 0
    assert loss.dtype == plain.dtype == torch.float32
    assert loss.item() == pytest.approx(plain.item() + 3 * extras["gradient_matching"].item(), rel=1e-6)


def test_depth_is_aligned_before_its_gradients_are_compared():
    batch = make_batch()
    task = Depth(ScaleShiftInvariantLoss(low_quantile=0, high_quantile=1), [GradientMatching()])
    _, extras = task.training_loss(0.01 * batch.targets["depth"].values - 0.3, batch)
    assert extras["gradient_matching"] < 1e-4


def test_terms_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="weight of GradientMatching must be a number from 0 on"):
        GradientMatching(weight=-1.0)
    with pytest.raises(InputError, match="num_scales >= 1"):
        GradientMatching(num_scales=0)
