import math

import numpy as np
import pytest
import torch

from geometry.batch import Target
from geometry.errors import InputError
from geometry.masked import masked_quantiles
from lightning_modules.losses import AngularLoss, ScaleShiftInvariantLoss
from tests.helpers.tiny import make_batch


def depth_images(num_images=3, size=16, seed=0):
    batch = make_batch(num_images, size, size, seed)
    noise = torch.randn(batch.targets["depth"].values.shape, generator=torch.Generator().manual_seed(seed))
    prediction = 0.1 * batch.targets["depth"].values - 0.4 + 0.05 * noise
    return prediction, batch.targets["depth"].values, batch.targets["depth"].mask


def loss_and_alignment(loss, prediction, target, mask):
    return loss(prediction, target, mask), loss.align(prediction, Target(target, mask))


def plain_loss(prediction, target, mask, per_image=False, low=0.02, high=0.98):
    """The formula in NumPy, float64: least squares by LAPACK, one image after the other."""
    residuals = []
    for p, d, m in zip(prediction.double().numpy(), target.double().numpy(), mask.numpy(), strict=True):
        p, d = p[m], d[m]
        d = d.clip(np.quantile(d, low), np.quantile(d, high))
        columns = np.stack([p, np.ones_like(p)], axis=1)
        residuals.append(np.abs(columns @ np.linalg.lstsq(columns, d, rcond=None)[0] - d))
    return np.mean([r.mean() for r in residuals]) if per_image else np.concatenate(residuals).mean()


class TestScaleShiftInvariantLoss:
    @pytest.mark.parametrize("per_image", [False, True])
    def test_equals_the_formula_in_float64(self, per_image):
        prediction, target, mask = depth_images()
        mask[0, :, :8] = False  # images with different numbers of pixels
        loss = ScaleShiftInvariantLoss(reduction="image" if per_image else "pixel")(prediction, target, mask)
        assert loss.item() == pytest.approx(plain_loss(prediction, target, mask, per_image), rel=1e-6)

    def test_a_scaled_and_shifted_copy_of_the_truth_costs_nothing(self):
        _, target, mask = depth_images()
        loss = ScaleShiftInvariantLoss(low_quantile=0, high_quantile=1)
        assert loss(target * 0.03 + 7, target, mask).item() < 1e-5

    def test_the_gradient_is_that_of_the_formula(self):
        prediction, target, mask = depth_images(num_images=2, size=4)
        prediction = prediction.double().requires_grad_()
        loss = ScaleShiftInvariantLoss()
        assert torch.autograd.gradcheck(lambda p: loss(p, target, mask), prediction)

    def test_a_few_far_outliers_do_not_rule_the_loss(self):
        prediction, target, mask = depth_images()
        spoiled = target.clone()
        spoiled[:, :, 0, 0], mask[:, :, 0, 0] = 60.0, True
        assert ScaleShiftInvariantLoss()(prediction, spoiled, mask).item() == pytest.approx(
            plain_loss(prediction, spoiled, mask), rel=1e-6
        )
        unclamped = ScaleShiftInvariantLoss(low_quantile=0, high_quantile=1)(prediction, spoiled, mask)
        assert unclamped > 1.3 * ScaleShiftInvariantLoss()(prediction, spoiled, mask)

    @pytest.mark.parametrize("std", [1e-3, 1e-4, 1e-5])
    def test_a_prediction_that_hardly_varies_is_scaled_right(self, std):
        prediction, target, mask = depth_images()
        prediction = 0.5 + std * (prediction - prediction.mean()) / prediction.std()
        loss, (*_, scale) = loss_and_alignment(ScaleShiftInvariantLoss(), prediction, target, mask)
        assert loss.item() == pytest.approx(plain_loss(prediction, target, mask), rel=1e-5)
        for index in range(len(prediction)):
            p, d = (values[index][mask[index]].double().numpy() for values in (prediction, target))
            slope = np.polyfit(p, d.clip(*np.quantile(d, [0.02, 0.98])), 1)[0]
            assert scale[index].item() == pytest.approx(slope, rel=1e-3)

    @pytest.mark.parametrize("factor", [1e-3, 1e3])
    def test_tiny_and_huge_depths_are_fine(self, factor):
        prediction, target, mask = depth_images()
        loss = ScaleShiftInvariantLoss()(prediction, target * factor, mask)
        assert loss.item() == pytest.approx(factor * plain_loss(prediction, target, mask), rel=1e-5)

    @pytest.mark.parametrize("spoil", ["constant prediction", "one valid pixel", "no valid pixel"])
    def test_an_image_without_an_alignment_contributes_no_pixel(self, spoil):
        prediction, target, mask = depth_images()
        alone = plain_loss(prediction[1:], target[1:], mask[1:])
        if spoil == "constant prediction":
            prediction[0] = 0.3
        else:
            mask[0] = False
            mask[0, 0, 5, 5] = spoil == "one valid pixel"
        prediction.requires_grad_()
        loss, (*_, scale) = loss_and_alignment(ScaleShiftInvariantLoss(), prediction, target, mask)
        loss.backward()
        assert loss.item() == pytest.approx(alone, rel=1e-6)
        assert scale[0].isnan()
        assert prediction.grad[0].abs().sum() == 0
        assert prediction.grad[1:].abs().sum() > 0

    def test_upside_down_depth_costs_nothing_by_default_as_in_the_paper(self):
        _, target, mask = depth_images()
        unclamped = ScaleShiftInvariantLoss(low_quantile=0, high_quantile=1)
        loss, (*_, scale) = loss_and_alignment(unclamped, -target, target, mask)
        assert loss.item() < 1e-5
        assert (scale < 0).all()

    def test_positive_scale_turns_an_upside_down_depth_round(self):
        _, target, mask = depth_images()
        loss = ScaleShiftInvariantLoss(positive_scale=True)
        prediction = (-0.1 * target).requires_grad_()
        before, (*_, scale) = loss_and_alignment(loss, prediction, target, mask)
        before.backward()
        assert before > 0.5
        assert (scale < 0).all()
        far, near = target[mask] > 6, target[mask] < 3
        assert prediction.grad[mask][far].mean() < 0 < prediction.grad[mask][near].mean()
        upright = loss(0.1 * target, target, mask)
        assert upright.item() == pytest.approx(ScaleShiftInvariantLoss()(0.1 * target, target, mask).item(), rel=1e-6)

    def test_a_normalised_target_makes_near_and_far_images_cost_the_same(self):
        prediction, target, mask = depth_images()
        loss = ScaleShiftInvariantLoss(normalize_target=True)
        near, far = loss(prediction, target, mask), loss(prediction, 20 * target + 3, mask)
        assert near.item() == pytest.approx(far.item(), rel=1e-5)
        assert loss(prediction, torch.full_like(target, 3.0), mask).isfinite()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_predictions_are_computed_in_float32(self, dtype):
        prediction, target, mask = depth_images()
        prediction = prediction.to(dtype)
        with torch.autocast("cpu", torch.bfloat16):
            loss = ScaleShiftInvariantLoss()(prediction, target, mask)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(plain_loss(prediction, target, mask), rel=1e-5)

    def test_quantiles_in_the_wrong_order_are_refused(self):
        with pytest.raises(InputError, match="low_quantile < high_quantile"):
            ScaleShiftInvariantLoss(low_quantile=0.98, high_quantile=0.02)


class TestAngularLoss:
    def test_equals_the_arc_cosine_in_float64(self):
        batch = make_batch()
        prediction = torch.randn(batch.targets["normals"].values.shape, generator=torch.Generator().manual_seed(1))
        mask = batch.targets["normals"].mask
        unit = torch.nn.functional.normalize(prediction.double(), dim=1)
        expected = torch.acos((unit * batch.targets["normals"].values.double()).sum(dim=1, keepdim=True))[mask].mean()
        loss = AngularLoss()(prediction, batch.targets["normals"].values, mask)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)

    @pytest.mark.parametrize(("sign", "angle"), [(1.0, 0.0), (-1.0, math.pi)])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_perfect_and_opposite_normals_keep_the_gradient_finite(self, sign, angle, dtype):
        batch = make_batch()
        prediction = (sign * batch.targets["normals"].values).to(dtype).requires_grad_()
        loss = AngularLoss()(prediction, batch.targets["normals"].values, batch.targets["normals"].mask)
        loss.backward()
        assert loss.item() == pytest.approx(angle, abs=1e-6 if dtype == torch.float32 else 4e-3)
        assert prediction.grad.isfinite().all()
        assert prediction.grad.abs().max() < 10

    def test_small_angles_do_not_drown_in_rounding(self):
        target = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
        for angle in (1e-2, 1e-4, 1e-6):
            prediction = torch.tensor([math.sin(angle), 0.0, math.cos(angle)]).reshape(1, 3, 1, 1)
            loss = AngularLoss()(prediction, target, torch.ones(1, 1, 1, 1, dtype=torch.bool))
            assert loss.item() == pytest.approx(angle, rel=1e-4)

    def test_a_vector_of_length_zero_counts_as_a_right_angle(self):
        prediction = torch.zeros(1, 3, 2, 2, requires_grad=True)
        target = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 2, 2)
        loss = AngularLoss()(prediction, target, torch.ones(1, 1, 2, 2, dtype=torch.bool))
        loss.backward()
        assert loss.item() == pytest.approx(math.pi / 2)
        assert prediction.grad.isfinite().all()

    def test_the_mean_of_image_means_weighs_images_alike(self):
        target = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).repeat(2, 1, 4, 4)
        prediction = target.clone()
        prediction[0] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
        mask[0, :, 1:] = False  # 4 of 20 pixels are wrong by 90 degrees
        assert AngularLoss("pixel")(prediction, target, mask).item() == pytest.approx(math.pi / 2 * 4 / 20)
        assert AngularLoss("image")(prediction, target, mask).item() == pytest.approx(math.pi / 4)


LOSSES = {
    "depth": (ScaleShiftInvariantLoss, 1),
    "depth per image": (lambda: ScaleShiftInvariantLoss(reduction="image", normalize_target=True), 1),
    "depth upright": (lambda: ScaleShiftInvariantLoss(positive_scale=True), 1),
    "normals": (AngularLoss, 3),
    "normals per image": (lambda: AngularLoss("image"), 3),
}


def images_for(channels):
    batch = make_batch()
    prediction = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(3))
    return (
        prediction,
        batch.targets["depth"].values if channels == 1 else batch.targets["normals"].values,
        batch.targets["depth"].mask,
    )


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_a_valid_pixel_is_zero_but_still_has_a_backward_pass(name):
    make_loss, channels = LOSSES[name]
    prediction, target, mask = images_for(channels)
    prediction[0, 0, 0, 0] = torch.nan
    prediction.requires_grad_()
    loss = make_loss()(prediction, target, torch.zeros_like(mask))
    assert loss.item() == 0
    loss.backward()
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_what_the_mask_hides_never_leaks(name, poison):
    make_loss, channels = LOSSES[name]
    prediction, target, mask = images_for(channels)
    clean = prediction.clone().requires_grad_()
    expected = make_loss()(clean, target, mask)
    expected.backward()
    hidden = ~mask.expand_as(prediction)
    poisoned = torch.where(hidden, poison, prediction).requires_grad_()
    loss = make_loss()(poisoned, torch.where(~mask.expand_as(target), poison, target), mask)
    loss.backward()
    assert loss.item() == expected.item()
    assert torch.equal(poisoned.grad, clean.grad)


def test_quantiles_are_those_of_numpy_and_none_for_an_empty_image():
    values = torch.randn(4, 1, 9, 7, generator=torch.Generator().manual_seed(5))
    mask = torch.rand(values.shape, generator=torch.Generator().manual_seed(6)) > 0.4
    mask[2], mask[3] = False, False
    mask[3, 0, 4, 4] = True
    low, high = masked_quantiles(values, mask, (0.02, 0.98))
    for index in (0, 1, 3):
        expected = np.quantile(values[index][mask[index]].numpy(), [0.02, 0.98])
        assert [low[index].item(), high[index].item()] == pytest.approx(expected.tolist(), rel=1e-5)
    assert low[2] == high[2] == 0
