"""Losses on targets in the range of the VAE's images: values by hand, masks, gradients, and both ways into a config."""

import numpy as np
import pytest
import torch

from geometry.batch import Target
from geometry.errors import InputError
from geometry.modalities import Depth as DepthModality
from lightning_modules import Depth, Normals
from lightning_modules.losses import ScaleShiftInvariantLoss
from lightning_modules.losses.auxiliary import GradientMatching
from lightning_modules.losses.base import LossInputs
from lightning_modules.losses.frequency import FourierLoss, WaveletLoss
from lightning_modules.losses.normalized import HuberGradient, NormalizedGradientL1, NormalizedL1, NormalizedMSE
from lightning_modules.losses.scheduled import Scheduled
from lightning_modules.losses.sink import SinkLoss
from tests.helpers.tiny import make_batch

LOSSES = [NormalizedL1, NormalizedMSE, NormalizedGradientL1, HuberGradient, FourierLoss, WaveletLoss, SinkLoss]


def images(size=8, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    prediction, target = (2 * torch.rand(2, channels, size, size, generator=generator) - 1 for _ in range(2))
    return prediction, target, torch.rand(2, 1, size, size, generator=generator) > 0.2


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("channels", [1, 3])
class TestEveryLoss:
    def test_the_gradient_is_that_of_finite_differences(self, kind, channels):
        prediction, target, mask = images(6, channels)
        prediction = prediction.double().requires_grad_()
        assert torch.autograd.gradcheck(lambda p: kind()(p, target.double(), mask), prediction, atol=1e-4)

    def test_what_is_unknown_has_no_influence_and_no_gradient(self, kind, channels):
        prediction, target, mask = images(8, channels)
        mask[:, :, :2] = False
        poisoned = torch.where(mask, prediction, 1e3).requires_grad_()
        loss = kind()(poisoned, torch.where(mask, target, torch.nan), mask)
        loss.backward()
        assert loss.item() == pytest.approx(kind()(prediction, target, mask).item(), rel=1e-5)
        assert poisoned.grad.isfinite().all() and not poisoned.grad.masked_select(~mask).any()

    def test_nothing_known_is_exactly_0_and_keeps_the_graph(self, kind, channels):
        prediction, target, mask = images(8, channels)
        prediction.requires_grad_()
        loss = kind()(prediction, target, torch.zeros_like(mask))
        loss.backward()
        assert loss == 0 and prediction.grad is not None and not prediction.grad.any()

    def test_half_precision_is_computed_in_full(self, kind, channels):
        prediction, target, mask = images(8, channels)
        loss = kind()(prediction.bfloat16(), target, mask)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(kind()(prediction.bfloat16().float(), target, mask).item(), rel=1e-6)


@pytest.mark.parametrize("kind", [loss for loss in LOSSES if loss is not SinkLoss])
def test_a_perfect_prediction_costs_nothing(kind):
    _, target, mask = images()
    assert kind()(target, target, mask) < 1e-6


class TestValues:
    def test_l1_and_mse_are_means_over_known_pixels(self):
        prediction, target, mask = images()
        error = (prediction - target)[mask]
        assert NormalizedL1()(prediction, target, mask).item() == pytest.approx(error.abs().mean().item())
        assert NormalizedMSE()(prediction, target, mask).item() == pytest.approx(error.square().mean().item())

    def test_the_gradient_loss_pools_pairs_of_both_directions(self):
        prediction, target, mask = images()
        error, total, count = (prediction - target).numpy(), 0.0, 0
        for b, y, x in np.argwhere(mask[:, 0].numpy()):
            for there in ((y, x + 1), (y + 1, x)):
                if max(there) < 8 and mask[b, 0, *there]:
                    total, count = total + abs(error[b, 0, *there] - error[b, 0, y, x]), count + 1
        assert NormalizedGradientL1()(prediction, target, mask).item() == pytest.approx(total / count, rel=1e-5)

    @pytest.mark.parametrize("reach", [1, 2])
    def test_the_huber_gradient_looks_in_four_directions(self, reach):
        prediction, target, mask = images()
        error, total, count, delta = (prediction - target).numpy(), 0.0, 0, 0.3
        for b, y, x in np.argwhere(mask[:, 0].numpy()):
            for step in range(1, reach + 1):
                for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    there = (y + step * dy, x + step * dx)
                    if 0 <= min(there) and max(there) < 8 and mask[b, 0, *there]:
                        change = abs(error[b, 0, *there] - error[b, 0, y, x])
                        total += change**2 / 2 if change < delta else delta * (change - delta / 2)
                        count += 1
        found = HuberGradient(delta=delta, reach=reach)(prediction, target, mask)
        assert found.item() == pytest.approx(total / count, rel=1e-5)

    def test_fine_errors_cost_more_than_coarse_ones_of_the_same_size(self):
        ramp = torch.arange(16).float()
        coarse, fine = (torch.cos(2 * torch.pi * k * ramp / 16).expand(1, 1, 16, 16) for k in (1, 6))
        zero, mask = torch.zeros(1, 1, 16, 16), torch.ones(1, 1, 16, 16, dtype=torch.bool)
        for loss in (FourierLoss(), WaveletLoss(num_levels=1)):
            assert loss(fine, zero, mask) > 3 * loss(coarse, zero, mask)
        # Two frequencies of amplitude 16 / 2 each, of 256; k / 16 times sqrt(2) of the corner's frequency.
        assert FourierLoss()(fine, zero, mask).item() == pytest.approx(2 * 8 * (6 / 16) * 2**0.5 / 256, rel=1e-3)

    def test_a_wavelet_detail_is_half_the_difference_of_two_sides(self):
        step = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 1, 8, 8)  # right - left is 1 in every block of 2 x 2
        zero, mask = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool)
        assert WaveletLoss(num_levels=3)(step, zero, mask).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("task", [Depth, Normals])
def test_the_task_gives_them_the_truth_as_the_network_learns_it(task):
    options = {"parameterization": "log", "low_quantile": 0.0, "high_quantile": 1.0} if task is Depth else {}
    whole = task(NormalizedL1(), extra_losses=[NormalizedMSE(2.0), NormalizedGradientL1()], **options)
    batch = make_batch()
    perfect = whole.predict(whole.target_image(batch)[0])
    total, extras = whole.training_loss(perfect, batch)
    assert total < 1e-6 and extras.keys() == {"normalized_mse", "normalized_gradient_l1"}
    shifted, _ = whole.training_loss(perfect + 0.1, batch)
    assert shifted.item() == pytest.approx(0.1 + 2 * 0.01, rel=1e-3)


def test_beside_another_main_loss_they_keep_their_own_range():
    batch = make_batch()
    task = Depth(ScaleShiftInvariantLoss(), extra_losses=[NormalizedL1(), GradientMatching()])
    perfect = task.predict(task.target_image(batch)[0])
    _, extras = task.training_loss(0.5 * perfect, batch)
    mask = batch.targets["depth"].mask
    assert extras["normalized_l1"].item() == pytest.approx((0.5 * perfect)[mask].abs().mean().item(), rel=1e-5)


class TestScheduled:
    def test_the_factor_runs_linearly_between_the_points_and_stays_outside(self):
        loss = Scheduled(NormalizedL1(weight=2.0), steps=[10, 20, 40], factors=[0.0, 1.0, 0.5])
        steps = (0, 10, 15, 20, 30, 40, 1000)
        assert [loss.weight_at(step) for step in steps] == pytest.approx([0, 0, 1, 2, 1.5, 1, 1])

    def test_total_and_log_follow_the_step(self):
        batch = make_batch()
        task = Depth(ScaleShiftInvariantLoss(), extra_losses=[Scheduled(NormalizedL1(), [0, 10], [0.0, 1.0])])
        prediction = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
        totals, logs = zip(*(task.training_loss(prediction, batch, step) for step in (0, 5, 10)), strict=True)
        term = logs[0]["normalized_l1"].item()
        assert totals[1].item() - totals[0].item() == pytest.approx(0.5 * term, rel=1e-4)
        assert totals[2].item() - totals[0].item() == pytest.approx(term, rel=1e-4)
        assert [log["normalized_l1_weight"].item() for log in logs] == [0, 0.5, 1]

    def test_a_main_loss_can_be_scheduled_and_the_others_share_its_alignment(self):
        batch = make_batch()
        inner = ScaleShiftInvariantLoss()
        prediction = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
        plain, logs = Depth(inner, [GradientMatching()]).training_loss(prediction, batch)
        task = Depth(Scheduled(inner, [0], [1.0]), [GradientMatching()])
        scheduled, again = task.training_loss(prediction, batch, 7)
        assert scheduled == plain and again["gradient_matching"] == logs["gradient_matching"]
        assert "negative_scale_share" in again

    @pytest.mark.parametrize(("steps", "factors"), [([], []), ([0, 0], [1.0, 1.0]), ([0], [1.0, 2.0]), ([0], [-1.0])])
    def test_points_that_make_no_curve_are_refused(self, steps, factors):
        with pytest.raises(InputError, match="rising steps and one factor"):
            Scheduled(NormalizedL1(), steps, factors)


def test_the_truth_as_an_image_is_computed_once():
    class Counting(DepthModality):
        calls = 0

        def to_image(self, target):
            Counting.calls += 1
            return super().to_image(target)

    batch = make_batch()
    inputs = LossInputs(torch.zeros(2, 1, 32, 32), Target(*batch.targets["depth"]), batch, NormalizedL1(), Counting())
    for loss in (NormalizedL1(), NormalizedMSE(), SinkLoss()):
        loss.of(inputs)
    assert Counting.calls == 1
