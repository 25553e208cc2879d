"""Losses as others write them, outside the package: they may see image, prediction, truth, masks, camera, data set."""

import dataclasses

import pytest
import torch
from jsonargparse import ArgumentParser

from geometry.batch import Target
from geometry.camera import pixel_rays, unproject
from lightning_modules import Depth
from lightning_modules.losses import ScaleShiftInvariantLoss
from lightning_modules.losses.base import Loss, LossInputs, total_loss
from lightning_modules.tasks import Task
from tests.helpers.tiny import make_batch

CAMERA = torch.tensor([[1 / 30, 0, -0.4], [0, -1 / 30, 0.6], [0, 0, -1]])


class EdgeAware(Loss):
    """Depth may change where the image does: smoothness, weighed with the changes of the image."""

    name = "edge_aware"

    def forward(self, prediction, target, valid_mask):
        raise AssertionError("this loss sees all of its inputs")

    def of(self, inputs):
        image = inputs.batch.image.diff(dim=3).abs().mean(dim=1, keepdim=True)
        return (inputs.prediction.diff(dim=3).abs() * torch.exp(-image)).mean()


class PointCloud(Loss):
    """Distance of the points that the main loss's alignment puts into space, by the camera of each image."""

    name = "point_cloud"

    def forward(self, prediction, target, valid_mask):
        return (prediction - target).norm(dim=1, keepdim=True)[valid_mask].mean()

    def of(self, inputs):
        aligned = inputs.aligned
        rays = pixel_rays(inputs.batch.camera.double(), *aligned.target.shape[-2:])
        points = (unproject(depth, rays) for depth in (aligned.prediction, aligned.target))
        return self(*points, aligned.mask)

    def remarks(self, inputs):
        return {"focal_length": 1 / inputs.batch.camera[:, 0, 0].mean()}


class Counting(Loss):
    """Counts how often it aligns."""

    name = "counting"
    aligned = 0

    def align(self, prediction, target):
        self.aligned += 1
        return super().align(2 * prediction, target)

    def forward(self, prediction, target, valid_mask):
        return (prediction - target)[valid_mask].abs().mean()


def inputs_of(main, seed=0):
    batch = dataclasses.replace(make_batch(seed=seed), camera=CAMERA.expand(2, 3, 3))
    prediction = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(seed + 1)).requires_grad_()
    return LossInputs(prediction, batch.targets["depth"], batch, main)


def test_the_total_is_the_main_loss_and_the_others_each_times_its_weight():
    main, edges = ScaleShiftInvariantLoss(weight=2.0), EdgeAware(weight=3.0)
    inputs = inputs_of(main)
    total, extras = total_loss(inputs, [edges])
    expected = 2 * main(inputs.prediction, *inputs.target) + 3 * edges.of(inputs)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6) and total.dtype == torch.float32
    assert extras["edge_aware"].item() == pytest.approx(edges.of(inputs).item(), rel=1e-6)
    assert not extras["edge_aware"].requires_grad and "negative_scale_share" in extras


def test_a_loss_sees_the_image_and_its_gradient_reaches_the_prediction():
    inputs = inputs_of(ScaleShiftInvariantLoss())
    before = EdgeAware().of(inputs)
    before.backward()
    assert inputs.prediction.grad.abs().sum() > 0
    inputs.batch.image = torch.zeros_like(inputs.batch.image)
    assert EdgeAware().of(inputs) > before


def test_a_loss_sees_the_camera_and_the_alignment_of_the_main_one():
    main = ScaleShiftInvariantLoss(low_quantile=0, high_quantile=1)
    inputs = inputs_of(main)
    _, extras = total_loss(inputs, [PointCloud()])
    depth, truth, mask = main.align(inputs.prediction, inputs.target)[:3]
    # The distance of two points on one ray is the difference of their depths times the ray's length.
    length = pixel_rays(CAMERA.double(), 32, 32).norm(dim=0)
    expected = ((depth - truth).abs() * length)[mask].mean()
    assert extras["point_cloud"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert extras["focal_length"].item() == pytest.approx(30)
    perfect = dataclasses.replace(inputs, prediction=0.1 * inputs.target.values - 3, _aligned={})
    assert PointCloud().of(perfect) < 1e-5


def test_losses_that_share_an_alignment_compute_it_once_and_others_keep_their_own():
    main, other = Counting(), Counting()
    inputs = inputs_of(main)
    total_loss(inputs, [PointCloud(), PointCloud()])
    assert main.aligned == 1
    assert torch.equal(inputs.aligned.prediction, 2 * inputs.prediction)
    assert inputs.aligned_by(other) is not inputs.aligned and other.aligned == main.aligned == 1


def test_by_default_prediction_and_truth_are_compared_as_they_are():
    class Plain(Counting):
        align = Loss.align

    prediction, mask = torch.full((1, 1, 2, 2), 5.0), torch.tensor([[True, False], [False, False]])[None, None]
    target = Target(torch.ones(1, 1, 2, 2), mask)
    inputs = LossInputs(prediction, target, make_batch(1, 2, 2), Plain())
    total, extras = total_loss(inputs, [])
    assert total == 4 and extras == {} and inputs.aligned.scale is None


CONFIG = """
task:
  class_path: {task}
  init_args:
    {modality}
    loss: {{class_path: ScaleShiftInvariantLoss}}
    extra_losses:
    - {{class_path: tests.lightning_modules.losses.test_base.EdgeAware, init_args: {{weight: 0.5}}}}
    - class_path: tests.lightning_modules.losses.test_base.PointCloud
"""


@pytest.mark.parametrize(
    ("task", "modality"),
    [("lightning_modules.Depth", ""), ("lightning_modules.Task", "modality: {class_path: geometry.modalities.Depth}")],
)
def test_losses_from_elsewhere_are_listed_in_a_config_by_their_class_path(task, modality):
    parser = ArgumentParser()
    parser.add_argument("--task", type=Task)
    made = parser.instantiate_classes(parser.parse_string(CONFIG.format(task=task, modality=modality))).task
    inputs = inputs_of(made.loss)
    total, extras = made.training_loss(inputs.prediction, inputs.batch)
    plain, _ = Depth().training_loss(inputs.prediction, inputs.batch)
    expected = plain + 0.5 * extras["edge_aware"] + extras["point_cloud"]
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert extras["edge_aware"] > 0 and extras["point_cloud"] > 0
