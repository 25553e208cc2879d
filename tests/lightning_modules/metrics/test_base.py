import math

import numpy as np
import pytest
import torch

from geometry.alignment import align_scale_shift
from geometry.batch import DatasetInfo
from geometry.modalities import Depth, Normals
from lightning_modules.metrics import AffineInvariantDepth, NormalsError
from lightning_modules.metrics.base import GeometryMetric, MeanError, all_scores
from tests.helpers.tiny import make_batch


def angles_deg(first, second):
    """Angles between vectors (N,3), by the arc cosine."""
    first, second = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (first, second))
    return np.degrees(np.arccos(np.clip((first * second).sum(axis=1), -1, 1)))


def test_the_mean_error_of_normals_is_that_of_images_means_beside_their_mean_vector():
    metric, errors, constants = MeanError(Normals()), [], []
    for seed in range(3):
        batch = make_batch(2, 16, 16, seed)
        values, mask = batch.targets["normals"]
        prediction = values + 0.3 * torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
        mask[1, :, :12] = False  # images weigh alike, however many of their pixels are known
        metric.add(prediction, batch.targets["normals"], batch)
        for one, truth, known in zip(prediction, values, mask[:, 0], strict=True):
            predicted, true = (image[:, known].T.double().numpy() for image in (one, truth))
            errors.append(angles_deg(predicted, true).mean())
            constants.append(angles_deg(true.mean(axis=0, keepdims=True), true).mean())
    scores = {name: value.item() for name, value in metric.compute().items()}
    expected = {"mean_angle_deg": np.mean(errors), "mean_angle_deg_constant": np.mean(constants)}
    assert scores == pytest.approx(expected, rel=1e-5)
    assert (metric.headline, metric.constant) == tuple(scores)


def test_the_mean_error_of_depth_is_relative_after_scale_and_shift():
    batch, metric = make_batch(3, 16, 16), MeanError(Depth())
    target = batch.targets["depth"]
    prediction = 0.1 * target.values + 0.02 * batch.image[:, :1]
    metric.add(prediction, target, batch)
    scale, shift = align_scale_shift(prediction.double(), *target)
    aligned = scale[:, None, None, None] * prediction + shift[:, None, None, None]
    expected = [((a - t).abs() / t)[m].mean().item() for a, t, m in zip(aligned, *target, strict=True)]
    assert metric.compute()["abs_rel"].item() == pytest.approx(np.mean(expected), rel=1e-6)
    assert metric.compute()["abs_rel"] < 0.1 < metric.compute()["abs_rel_constant"]


def test_images_without_a_known_pixel_do_not_count_and_garbage_where_unknown_neither():
    batch = make_batch(2, 8, 8)
    values, mask = batch.targets["depth"]
    whole, spoiled = MeanError(Depth()), MeanError(Depth())
    prediction = values + batch.image[:, :1]
    whole.update(prediction[:1], values[:1], mask[:1])
    mask[1] = False
    spoiled.update(torch.where(mask, prediction, torch.nan), torch.where(mask, values, torch.inf), mask)
    assert spoiled.num_images == 1 and spoiled.compute() == whole.compute()
    assert all(math.isnan(score) for score in MeanError(Depth()).compute().values())


def test_metrics_of_a_data_set_are_new_ones_by_its_rules():
    used, batch = MeanError(Depth()), make_batch(1, 8, 8)
    fresh = used.for_dataset(DatasetInfo("tiny"))
    fresh.add(batch.image[:, :1], batch.targets["depth"], batch)
    assert (used.num_images, fresh.num_images) == (0, 1)
    depth = AffineInvariantDepth().for_dataset(DatasetInfo("tiny", {"depth": (2.0, 5.0)}, max_fit_size_px=64))
    assert (depth.near_plane_m, depth.far_plane_m, depth.max_fit_size_px) == (2, 5, 64)


def test_scores_of_several_metrics_are_one_table():
    batch, metrics = make_batch(2, 8, 8), [NormalsError(), MeanError(Normals())]
    for metric in metrics:
        metric.add(batch.image, batch.targets["normals"], batch)
    scores = all_scores(metrics)
    assert scores.keys() == metrics[0].compute().keys() | {"mean_angle_deg", "mean_angle_deg_constant"}


def test_a_metric_may_see_the_whole_batch():
    class Brightness(GeometryMetric):
        """Counts bright images: needs nothing of the prediction."""

        headline = "dark"

        def __init__(self):
            super().__init__()
            self.add_state("num_images", torch.tensor(0), dist_reduce_fx="sum")
            self.add_state("dark", torch.tensor(0), dist_reduce_fx="sum")

        def update(self, dark):
            self.num_images += len(dark)
            self.dark += dark.sum()

        def add(self, prediction, target, batch):
            self.update(batch.image.mean(dim=(1, 2, 3)) < 0)

        def compute(self):
            return {"dark": self.dark / self.num_images}

    batch, metric = make_batch(2, 8, 8), Brightness()
    batch.image[0], batch.image[1] = -1, 1
    metric.add(batch.image, batch.targets["depth"], batch)
    assert metric.compute()["dark"] == 0.5
