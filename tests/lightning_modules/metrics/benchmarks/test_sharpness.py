"""Sharpness where edges are exact: shifted by a pixel, blurred, with flying pixels; and the sources' own figures."""

import math

import numpy as np
import pytest
import torch

from geometry.batch import DatasetInfo, GeometryBatch, Target
from geometry.parameterization import Parameterization
from lightning_modules import Depth
from lightning_modules.evaluation.scoring import Scorer, Tally
from lightning_modules.metrics.benchmarks.boundaries import BoundaryF1, BoundaryRecall
from lightning_modules.metrics.benchmarks.choice import MetricChoice
from lightning_modules.metrics.benchmarks.ibims import DepthBoundaryError, PlanarityError, canny_edges, plane_errors
from lightning_modules.metrics.benchmarks.ordinal import OrdinalAccuracy
from lightning_modules.metrics.benchmarks.soft_edges import SoftAngularEdgeError, SoftEdgeError
from tests.helpers.tiny import make_batch
from tests.lightning_modules.metrics.benchmarks.edge_scenes import (
    FAR_M,
    NEAR_M,
    everywhere,
    plane_scene,
    random_normal_scene,
    random_scene,
    step,
)


def values_of(metric, *images):
    metric.update(*images)
    return {name.removeprefix("metric/"): float(value) for name, value in metric.compute().items()}


def soft_errors(prediction, depth):
    # The wide range of quantiles leaves nothing out where there are but two depths.
    return values_of(SoftEdgeError("metric"), prediction, depth, everywhere(depth))


class TestSoftEdges:
    @pytest.mark.parametrize("metric", [SoftEdgeError("metric", jump=1e6), SoftAngularEdgeError(jump_deg=181)])
    def test_the_edges_that_were_asked_for_are_those_of_every_dataset(self, metric):
        of_dataset = metric.for_dataset(DatasetInfo("x"))
        channels = 3 if isinstance(metric, SoftAngularEdgeError) else 1
        images = [step(column=column).expand(1, channels, -1, -1) for column in (20, 21)]
        of_dataset.update(*images, everywhere(images[0][:, :1]))
        assert of_dataset.num_images == 0

    def test_an_edge_that_is_shifted_by_one_pixel_costs_only_without_a_neighbourhood(self):
        depth, shifted = step(column=20), step(column=21)
        found = soft_errors(shifted, depth)
        assert found["see1"] == pytest.approx((FAR_M - NEAR_M) / 2)  # one of the two sides of the edge is wrong
        assert found["see3"] == found["see5"] == found["see7"] == 0

    def test_it_does_not_see_how_far_an_edge_is_shifted(self):
        # Only what stands at true edges is charged: that is why boundaries are measured, too.
        assert soft_errors(step(column=30), step(column=20))["see3"] == 0

    def test_a_blurred_edge_costs_in_every_neighbourhood(self):
        depth = step()
        blurred = depth.clone()
        blurred[..., 19], blurred[..., 20] = NEAR_M + 1.0, FAR_M - 1.2
        found = soft_errors(blurred, depth)
        for name in ("see3", "see5", "see7"):
            assert found[name] == pytest.approx((1.0 + 1.2) / 2, rel=1e-6)

    def test_flying_pixels_cost_what_they_are_away_from_either_side(self):
        depth = step()
        flying = depth.clone()
        flying[..., ::2, 20] = 3.0  # 1 m from the near side, in half of the rows
        assert soft_errors(flying, depth)["see3"] == pytest.approx(1.0 / 4)

    def test_images_without_an_edge_are_not_counted(self):
        flat = torch.full((1, 1, 8, 8), 3.0)
        metric = SoftEdgeError("metric")
        assert all(math.isnan(value) for value in values_of(metric, flat, flat, everywhere(flat)).values())
        assert values_of(metric, step(column=21), step(), everywhere(step()))["see3"] == 0
        assert int(metric.num_images) == 1

    # metric.soft_edge_error of huawei-bayerlab/marigold-v2 with its quantile mask, on random_scene(seed).
    @pytest.mark.parametrize(
        "seed, theirs",
        [
            (0, (0.05832713, 0.04348167, 0.03233122, 0.02507677)),
            (1, (0.29551688, 0.28033200, 0.24549162, 0.23107779)),
            (2, (0.27226824, 0.25490657, 0.24400966, 0.21056868)),
        ],
    )
    def test_soft_edge_errors_are_those_of_the_source_s_own_code(self, seed, theirs):
        depth, prediction, valid = (image[None, None] for image in random_scene(seed))
        found = values_of(SoftEdgeError("metric"), prediction, depth, valid)
        assert list(found.values()) == pytest.approx(theirs, rel=1e-6)

    # soft_edge_angular_error of huawei-bayerlab/marigold-v2, evaluation/normals_saee, on random_normal_scene(seed).
    @pytest.mark.parametrize(
        "seed, theirs",
        [
            (0, (24.687082, 18.596642, 17.682755, 17.114570)),
            (1, (26.294176, 20.355656, 19.585384, 18.677801)),
            (2, (26.376360, 19.013884, 18.432267, 17.667605)),
        ],
    )
    def test_angular_ones_are_those_of_the_source_s_own_code(self, seed, theirs):
        normals, guess, valid = random_normal_scene(seed)
        found = values_of(SoftAngularEdgeError(), guess[None], normals[None], valid[None, None])
        assert list(found.values()) == pytest.approx(theirs, rel=1e-6)

    def test_normals_whose_edge_is_shifted_by_one_pixel_cost_nothing_from_three_on(self):
        normals = torch.zeros(1, 3, 10, 16)
        normals[:, 2, :, :8], normals[:, 0, :, 8:] = 1, 1
        found = values_of(SoftAngularEdgeError(), normals.roll(1, dims=3), normals, torch.ones(1, 1, 10, 16) > 0)
        assert found["saee1_deg"] == pytest.approx(45)  # one side of the edge is turned by 90 degrees
        assert found["saee3_deg"] == pytest.approx(0, abs=1e-6)
        halfway = normals.clone()
        halfway[..., 7:9] = torch.tensor([1.0, 0, 1])[:, None, None] / math.sqrt(2)
        found = values_of(SoftAngularEdgeError(), halfway, normals, torch.ones(1, 1, 10, 16) > 0)
        assert found["saee7_deg"] == pytest.approx(45, rel=1e-6)


class TestBoundaries:
    def test_boundaries_of_a_step_are_found_at_their_place_alone(self):
        depth = step()
        found = values_of(BoundaryF1("metric"), 3 * depth, depth, everywhere(depth))
        # The step has one of four sides; the source counts the three without any boundary as missed.
        assert found["boundary_precision"] == found["boundary_recall"] == found["boundary_f1"] == 0.25
        shifted = values_of(BoundaryF1("metric"), step(column=21), depth, everywhere(depth))
        assert shifted["boundary_f1"] == 0 and shifted["boundary_f1_error"] == 1

    def test_a_blurred_edge_and_flying_pixels_cost_precision(self):
        depth = torch.full((1, 1, 30, 30), 5.0)
        depth[..., 8:20, 8:20] = 2.0
        sharp = values_of(BoundaryF1("metric"), depth, depth, everywhere(depth))
        assert sharp["boundary_f1"] == pytest.approx(1)
        blurred = torch.nn.functional.avg_pool2d(depth, 3, 1, 1, count_include_pad=False)
        dull = values_of(BoundaryF1("metric"), blurred, depth, everywhere(depth))
        assert dull["boundary_precision"] < 0.6 and dull["boundary_f1"] < 0.8
        flying = depth.clone()
        flying[..., 2::3, 2::3] = 3.0
        assert values_of(BoundaryF1("metric"), flying, depth, everywhere(depth))["boundary_precision"] < 0.5

    def test_unknown_pixels_make_no_boundary(self):
        depth = torch.full((1, 1, 12, 12), 4.0)
        depth[..., :6] = 2.0
        valid = everywhere(depth)
        holes = depth.clone()
        holes[..., 3, :], valid[..., 3, :] = 0, False
        assert values_of(BoundaryF1("metric"), depth, holes, valid)["boundary_precision"] == 0.25

    # SI_boundary_F1 of apple/ml-depth-pro, on random_scene(seed).
    @pytest.mark.parametrize("seed, f1", [(0, 0.9389321666497896), (1, 0.7986471858630453), (2, 0.8034000382171675)])
    def test_the_f1_is_that_of_the_source_s_own_code(self, seed, f1):
        depth, prediction, _ = (image[None, None] for image in random_scene(seed))
        found = values_of(BoundaryF1("metric"), prediction, depth, everywhere(depth))
        assert found["boundary_f1"] == pytest.approx(f1, rel=1e-9)

    # SI_boundary_Recall of apple/ml-depth-pro for the mask depth < 3 of random_scene(seed).
    @pytest.mark.parametrize("seed, recall", [(0, 1.0), (1, 0.9951923076923077), (2, 0.9494225226322413)])
    def test_the_recall_of_a_matte_is_that_of_the_source_s_own_code(self, seed, recall):
        depth, prediction, _ = (image[None, None] for image in random_scene(seed))
        found = values_of(BoundaryRecall(), prediction, (depth < 3).float(), everywhere(depth))
        assert found["matte_recall"] == pytest.approx(recall, rel=1e-9)
        shifted = values_of(BoundaryRecall(), prediction.roll(3, 3).roll(3, 2), (depth < 3).float(), everywhere(depth))
        assert shifted["matte_recall"] < 0.5 * recall


@pytest.mark.parametrize("name", ["boundary_recall", "ordinal", "boundary_error", "planarity"])
def test_a_metric_scores_nothing_where_a_dataset_has_not_got_its_reference(name):
    batch = make_batch(num_images=1)
    scorer, tally = Scorer(Depth(), batch.dataset, MetricChoice(metrics=(name,))), Tally()
    assert scorer.score(tally, batch.targets["depth"].values, batch)
    assert scorer.overall(tally).keys() == Scorer(Depth(), batch.dataset).overall(tally).keys()


class TestIbims:
    def test_a_shifted_edge_is_as_far_as_it_is_shifted(self):
        size = (60, 80)
        edges = torch.from_numpy(canny_edges(step(size, 40)[0, 0].numpy()))[None, None]
        for pixels in (0, 3):
            metric, moved = DepthBoundaryError("metric"), step(size, 40 + pixels)
            metric.update(moved, step(size, 40), everywhere(moved), edges)
            accuracy, completeness = (float(value) for value in metric.compute().values())
            assert (accuracy, completeness) == pytest.approx((pixels, pixels), abs=0.05)

    def test_no_edge_near_a_true_one_costs_the_largest_distance(self):
        depth = step((60, 80), 40)
        edges = torch.from_numpy(canny_edges(depth[0, 0].numpy()))[None, None]
        for prediction in (torch.full_like(depth, 3.0), step((60, 80), 60)):
            metric = DepthBoundaryError("metric")
            metric.update(prediction, depth, everywhere(depth), edges)
            assert [float(value) for value in metric.compute().values()] == [10, 10]

    # compute_depth_boundary_error of iBims-1's evaluation scripts, on random_scene(seed, (96, 128)) with the Canny
    # edges of its true depth.
    @pytest.mark.parametrize(
        "seed, theirs",
        [
            (0, (0.043243243243243246, 0.03804347826086957)),
            (1, (0.2235294117647059, 0.21893491124260356)),
            (2, (0.2651162790697674, 0.22926829268292684)),
        ],
    )
    def test_boundary_errors_are_those_of_the_source_s_own_code(self, seed, theirs):
        depth, prediction, _ = (image[None, None] for image in random_scene(seed, (96, 128)))
        metric = DepthBoundaryError("metric")
        metric.update(
            prediction, depth, everywhere(depth), torch.from_numpy(canny_edges(depth[0, 0].numpy()))[None, None]
        )
        assert [float(value) for value in metric.compute().values()] == pytest.approx(theirs, rel=1e-9)

    # compute_planarity_error of iBims-1's evaluation scripts, on plane_scene(seed), the mean over its planes.
    @pytest.mark.parametrize(
        "seed, theirs",
        [
            (0, (3.069662772907, 5.243014808935)),
            (1, (3.103145747889, 5.257416907455)),
            (2, (3.065559513101, 5.235096704258)),
        ],
    )
    def test_planarity_errors_are_those_of_the_source_s_own_code(self, seed, theirs):
        depth, prediction, planes, _, camera, _ = plane_scene(seed)
        metric = PlanarityError("metric")
        metric.update(prediction[None, None], depth[None, None], depth[None, None] > 0, planes, camera[None])
        assert [float(value) for value in metric.compute().values()] == pytest.approx(theirs, rel=1e-6)
        assert int(metric.num_planes) == 2, "the table covers less than 5 %"

    def test_a_perfect_plane_is_flat_and_oriented_and_a_bent_one_is_not(self):
        depth, _, planes, _, camera, _ = plane_scene(0)
        metric = PlanarityError("metric")
        metric.update(2 * depth[None, None], depth[None, None], depth[None, None] > 0, planes, camera[None])
        assert [float(value) for value in metric.compute().values()] == pytest.approx([0, 0], abs=1e-3)
        points = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0), torch.tensor([-0.02, 0.02])).double()
        flat, angle = plane_errors(points, torch.tensor([0.0, math.sin(0.1), math.cos(0.1)]).double())
        assert (float(flat), float(angle)) == pytest.approx((2, math.degrees(0.1)), rel=1e-6)

    def test_other_data_without_edges_and_planes_is_not_scored(self):
        depth = step()
        batch = GeometryBatch(
            torch.zeros(1, 3, 24, 40), {"depth": Target(depth, everywhere(depth))}, ["a"], DatasetInfo("x")
        )
        for metric in (DepthBoundaryError("metric"), PlanarityError("metric"), OrdinalAccuracy()):
            metric.add(depth, batch.targets["depth"], batch)
            assert int(metric.num_images) == 0


def test_pairs_are_ordered_by_depth_and_by_disparity_the_other_way_round():
    depth = torch.arange(12.0).reshape(1, 1, 3, 4)
    rows = [(0, 0, 2, 3, 1), (2, 3, 0, 0, 2), (1, 1, 0, 0, 1), (1, 1, 1, 1, 1)]  # right, right, wrong, equal
    pairs = torch.tensor([[*row, 3, 4] for row in rows]).float().T[None, :, None]
    present = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    metric = OrdinalAccuracy()
    assert metric.size_of(Target(pairs, present)) == (3, 4)
    assert values_of(metric, depth, pairs, present)["ordinal_accuracy"] == 0.5
    assert values_of(OrdinalAccuracy(Parameterization("disparity")), depth, pairs, present)["ordinal_error"] == 0.75
    assert values_of(OrdinalAccuracy(), depth, pairs[..., :1], present[..., :1])["ordinal_accuracy"] == 1


def test_sharpness_is_measured_after_the_alignment_of_the_protocol():
    depth, prediction, valid = (image[None, None] for image in random_scene(0))
    for metric in (SoftEdgeError, BoundaryF1):
        for protocol in ("least_squares", "ransac_log"):
            first, second = metric(protocol), metric(protocol)
            first.update(prediction, depth, valid)
            second.update(0.01 * prediction - 5, depth, valid)
            for name, value in first.compute().items():
                assert float(second.compute()[name]) == pytest.approx(float(value), rel=1e-3), (metric, name)
    assert np.isfinite([float(value) for value in first.compute().values()]).all()
