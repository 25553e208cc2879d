import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightning_modules.metrics import AffineInvariantDepth, NormalsError
from lightning_modules.metrics.depth_scores import best_constant
from lightning_modules.metrics.normals import best_constant_normal
from tests.depth_metrics import depth_metrics
from tests.helpers.tiny import make_batch


def depth_images(num_images=4, seed=0):
    batch = make_batch(num_images, 12, 20, seed)
    noise = torch.randn(batch.targets["depth"].values.shape, generator=torch.Generator().manual_seed(seed + 100))
    return (
        0.2 * batch.targets["depth"].values - 1 + 0.2 * noise,
        batch.targets["depth"].values,
        batch.targets["depth"].mask,
    )


def depth_metrics_of(prediction, depth, mask, near=1e-6, far=math.inf):
    """One image's metrics in NumPy, float64, from their definitions."""
    p, d = prediction[mask].double().numpy(), depth[mask].double().numpy()
    constants = [np.mean(np.abs(constant - d) / d) for constant in d]
    return depth_metrics(p, d, near, far) | {"abs_rel_constant": min(constants)}


def computed(metric):
    return {name: value.item() for name, value in metric.compute().items()}


class TestAffineInvariantDepth:
    def test_equals_the_definitions_in_float64(self):
        prediction, depth, mask = depth_images()
        metric = AffineInvariantDepth()
        metric.update(prediction[:3], depth[:3], mask[:3])
        metric.update(prediction[3:], depth[3:], mask[3:])
        images = [depth_metrics_of(*image) for image in zip(prediction, depth, mask, strict=True)]
        expected = {name: np.mean([image[name] for image in images]) for name in images[0]}
        assert computed(metric) == pytest.approx(expected, rel=1e-9)

    def test_negative_and_far_predictions_are_clipped_to_what_can_be_true(self):
        prediction, depth, mask = depth_images(1)
        prediction = 0.2 * depth - 1
        prediction[0, 0, 0, :2], mask[0, 0, 0, :2] = torch.tensor([-2.0, 2.0]), True  # about -5 m and 15 m
        depth[0, 0, 0, :2] = 4.0
        metric = AffineInvariantDepth(near_plane_m=0.5, far_plane_m=9.0)
        metric.update(prediction, depth, mask)
        expected = depth_metrics_of(prediction[0], depth[0], mask[0], 0.5, 9.0)
        assert computed(metric) == pytest.approx(expected, rel=1e-9)
        unclipped = depth_metrics_of(prediction[0], depth[0], mask[0])
        assert unclipped["irmse"] > 1000 * expected["irmse"]
        assert unclipped["rmse"] != expected["rmse"]

    def test_an_affine_copy_of_the_truth_is_perfect_even_upside_down(self):
        _, depth, mask = depth_images()
        for copy in (0.01 * depth + 0.3, -0.2 * depth):
            metric = AffineInvariantDepth()
            metric.update(copy, depth, mask)
            values = computed(metric)
            assert values["abs_rel"] < 1e-5
            assert values["delta1"] == 1

    def test_a_ratio_of_exactly_the_limit_does_not_count_as_under_it(self):
        depth = torch.tensor([4.0, 5.0]).reshape(1, 1, 1, 2)
        metric = AffineInvariantDepth(near_plane_m=5.0, far_plane_m=5.0)  # predicts 5 m everywhere
        metric.update(depth, depth, torch.ones(1, 1, 1, 2, dtype=torch.bool))
        assert computed(metric)["delta1"] == 0.5

    def test_images_without_a_valid_pixel_are_not_counted(self):
        prediction, depth, mask = depth_images()
        metric, plain = AffineInvariantDepth(), AffineInvariantDepth()
        empty = torch.zeros_like(mask)
        metric.update(torch.full_like(prediction, torch.nan), depth * 0, empty)
        metric.update(torch.cat([prediction, prediction]), torch.cat([depth, depth]), torch.cat([mask, empty]))
        plain.update(prediction, depth, mask)
        assert computed(metric) == pytest.approx(computed(plain), rel=1e-12)
        assert metric.num_images == 4

    def test_no_image_at_all_is_no_score(self):
        metric = AffineInvariantDepth()
        metric.update(*(t * 0 for t in depth_images()[:2]), torch.zeros(4, 1, 12, 20, dtype=torch.bool))
        assert all(math.isnan(value) for value in computed(metric).values())

    def test_what_the_mask_hides_does_not_matter(self):
        prediction, depth, mask = depth_images()
        metric, spoiled = AffineInvariantDepth(), AffineInvariantDepth()
        metric.update(prediction, depth, mask)
        spoiled.update(torch.where(mask, prediction, torch.inf), torch.where(mask, depth, torch.nan), mask)
        assert computed(spoiled) == computed(metric)

    def test_a_constant_prediction_scores_as_the_mean_depth_not_as_nothing(self):
        _, depth, mask = depth_images(1)
        metric = AffineInvariantDepth()
        metric.update(torch.full_like(depth, 0.3), depth, mask)
        valid = depth[mask].double()
        expected = ((valid.mean() - valid).abs() / valid).mean().item()
        assert computed(metric)["abs_rel"] == pytest.approx(expected, rel=1e-6)
        assert computed(metric)["abs_rel_constant"] < expected

    def test_half_precision_predictions_are_computed_in_float32(self):
        prediction, depth, mask = depth_images()
        metric, plain = AffineInvariantDepth(), AffineInvariantDepth()
        metric.update(prediction.bfloat16(), depth, mask)
        plain.update(prediction.bfloat16().double(), depth, mask)
        assert computed(metric) == pytest.approx(computed(plain), rel=1e-12)


def best_constant_depth(depth, mask):
    """The best constant of each image, (B,1,1,1)."""
    found = [best_constant(image[known]) for image, known in zip(depth, mask, strict=True)]
    return torch.stack(found)[:, None, None, None].to(depth.dtype)


def test_the_best_constant_depth_is_found_among_any_depths_as_by_sorting_them():
    generator = np.random.default_rng(0)
    for round_ in range(60):
        spread = (0.01, 0.1, 2)[round_ % 3]  # from depths that share most of their bits to some that share none
        depth = torch.tensor(10 ** generator.uniform(-spread, spread, generator.integers(1, 100)).round(round_ % 4 + 3))
        depth = depth.float()
        order = depth.double().sort().values
        weight = (1 / order).cumsum(dim=0)
        expected = order[weight >= weight[-1] / 2][0].item()
        shape = (1, 1, 1, len(depth))
        found = best_constant_depth(depth.reshape(shape), torch.ones(shape, dtype=torch.bool))
        assert found.item() == pytest.approx(expected, rel=1e-6)


def test_the_best_constant_depth_cannot_be_beaten():
    _, depth, mask = depth_images()
    constant = best_constant_depth(depth.double(), mask)
    for index in range(len(depth)):
        valid = depth[index][mask[index]].double()
        cost = ((constant[index] - valid).abs() / valid).mean()
        others = torch.linspace(1, 9, 4001, dtype=torch.float64)[:, None]
        assert cost <= ((others - valid).abs() / valid).mean(dim=1).min() + 1e-12


class TestNormalsError:
    def test_equals_the_definitions_in_float64(self):
        images = [make_batch(2, 10, 14, seed) for seed in range(3)]
        metric, angles, means = NormalsError(), [], []
        for seed, batch in enumerate(images):
            noise = torch.randn(batch.targets["normals"].values.shape, generator=torch.Generator().manual_seed(seed))
            prediction, mask = batch.targets["normals"].values + 0.4 * noise, batch.targets["normals"].mask
            metric.update(prediction, batch.targets["normals"].values, mask)
            unit = F.normalize(prediction.double(), dim=1)
            cosine = (unit * F.normalize(batch.targets["normals"].values.double(), dim=1)).sum(dim=1, keepdim=True)
            angle = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
            angles.append(angle[mask].numpy())
            means += [image[valid].mean().item() for image, valid in zip(angle, mask, strict=True)]
        pooled, values = np.concatenate(angles), computed(metric)
        assert values["mean_angle_deg"] == pytest.approx(pooled.mean(), rel=1e-6)
        assert values["rmse_angle_deg"] == pytest.approx(np.sqrt(np.mean(pooled**2)), rel=1e-6)
        assert values["median_angle_deg"] == pytest.approx(np.median(pooled), abs=1e-3)
        assert values["mean_angle_deg_per_image"] == pytest.approx(np.mean(means), rel=1e-6)
        for limit, name in ((5, "5"), (7.5, "7_5"), (11.25, "11_25"), (22.5, "22_5"), (30, "30")):
            assert values[f"share_under_{name}_deg"] == pytest.approx(np.mean(pooled < limit), abs=1e-12)

    def test_a_rotation_by_ten_degrees_scores_ten(self):
        batch = make_batch()
        angle = math.radians(10)
        normals, mask = batch.targets["normals"].values.double(), batch.targets["normals"].mask
        across = F.normalize(torch.linalg.cross(normals, torch.randn_like(normals), dim=1), dim=1)
        metric = NormalsError()
        metric.update(math.cos(angle) * normals + math.sin(angle) * across, normals, mask)
        values = computed(metric)
        for name in ("mean_angle_deg", "rmse_angle_deg", "mean_angle_deg_per_image"):
            assert values[name] == pytest.approx(10, abs=1e-5)
        assert values["median_angle_deg"] == pytest.approx(10, abs=1e-3)
        assert (values["share_under_7_5_deg"], values["share_under_11_25_deg"]) == (0, 1)

    @pytest.mark.parametrize("angles", [np.linspace(0, 80, 4001), [10, 10, 20, 20], [0, 0, 170], [3.3], [0, 180]])
    def test_the_median_is_exact_to_a_thousandth_of_a_degree(self, angles):
        spread = torch.tensor(angles, dtype=torch.float64).deg2rad()
        prediction = torch.stack([spread.sin(), 0 * spread, spread.cos()])[None, :, None]
        ahead = torch.tensor([0.0, 0, 1])[None, :, None, None].expand_as(prediction)
        metric = NormalsError()
        metric.update(prediction, ahead, torch.ones(1, 1, 1, len(spread)) > 0)
        assert computed(metric)["median_angle_deg"] == pytest.approx(np.median(angles), abs=1e-3)

    def test_perfect_normals_score_zero(self):
        batch = make_batch()
        metric = NormalsError()
        metric.update(
            3 * batch.targets["normals"].values, batch.targets["normals"].values, batch.targets["normals"].mask
        )
        assert computed(metric)["mean_angle_deg"] < 1e-5
        assert computed(metric)["share_under_5_deg"] == 1

    def test_images_without_a_valid_pixel_and_hidden_pixels_do_not_matter(self):
        batch = make_batch(4)
        noisy, mask = batch.targets["normals"].values + 0.1, batch.targets["normals"].mask
        metric, plain = NormalsError(), NormalsError()
        metric.update(torch.full_like(noisy, torch.nan), batch.targets["normals"].values * 0, torch.zeros_like(mask))
        metric.update(
            torch.where(mask, noisy, torch.nan), torch.where(mask, batch.targets["normals"].values, torch.inf), mask
        )
        plain.update(noisy, batch.targets["normals"].values, mask)
        assert computed(metric) == pytest.approx(computed(plain), rel=1e-12)

    def test_no_image_at_all_is_no_score(self):
        metric = NormalsError()
        batch = make_batch()
        metric.update(
            batch.targets["normals"].values,
            batch.targets["normals"].values,
            torch.zeros_like(batch.targets["normals"].mask),
        )
        assert all(math.isnan(value) for value in computed(metric).values())


def test_the_best_constant_normal_beats_every_other_direction():
    batch = make_batch(3, 16, 16)
    normals = torch.where(batch.targets["normals"].mask, batch.targets["normals"].values, 0.0).double()
    normals[0] = normals[0] * torch.tensor([1.0, 1, -1])[:, None, None] ** (torch.rand(16, 16) > 0.7)  # two clusters
    best = best_constant_normal(normals, batch.targets["normals"].mask)

    def mean_angles(directions):
        cosine = torch.einsum("nc,bchw->nbhw", directions, normals)
        valid = batch.targets["normals"].mask[:, 0]
        return torch.stack([torch.acos(cosine[:, i, valid[i]].clamp(-1, 1)).mean(dim=1) for i in range(3)], dim=1)

    directions = F.normalize(
        torch.randn(3000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    own = mean_angles(best[:, :, 0, 0]).diagonal()
    assert (own <= mean_angles(directions).min(dim=0).values).all()
    nudged = F.normalize(best[:, :, 0, 0] + 0.02 * directions[:3], dim=1)
    assert (own <= mean_angles(nudged).diagonal() + 1e-6).all()
    mean = F.normalize(normals.sum(dim=(2, 3)), dim=1)
    assert (own <= mean_angles(mean).diagonal()).all()


def test_the_best_constant_normal_of_nothing_is_a_unit_vector():
    best = best_constant_normal(torch.zeros(1, 3, 4, 4, dtype=torch.float64), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    assert best.flatten().tolist() == [0, 0, 1]


@pytest.mark.parametrize("make_metric", [AffineInvariantDepth, NormalsError])
def test_ranks_with_different_numbers_of_batches_give_the_one_rank_result(make_metric):
    batches = [make_batch(size, 8, 12, seed) for seed, size in enumerate((3, 1, 2))]

    def feed(metric, batch):
        if make_metric is AffineInvariantDepth:
            metric.update(
                batch.targets["depth"].values + batch.image[:, :1],
                batch.targets["depth"].values,
                batch.targets["depth"].mask,
            )
        else:
            metric.update(
                batch.targets["normals"].values + 0.2 * batch.image,
                batch.targets["normals"].values,
                batch.targets["normals"].mask,
            )

    alone, ranks = make_metric(), [make_metric(), make_metric()]
    for batch in batches:
        feed(alone, batch)
    feed(ranks[0], batches[0])
    feed(ranks[0], batches[1])
    feed(ranks[1], batches[2])
    states = {name: [getattr(rank, name) for rank in ranks] for name in ranks[0]._defaults}
    for name, values in states.items():
        setattr(ranks[0], name, ranks[0]._reductions[name](torch.stack(values)))
    assert computed(ranks[0]) == pytest.approx(computed(alone), rel=1e-12)
