"""Metrics of albedo against formulas written out with NumPy."""

import math

import numpy as np
import pytest
import torch

from lightning_modules.metrics.albedo import AlbedoError


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(3, 3, 8, 9, generator=generator)
    mask = torch.rand(3, 1, 8, 9, generator=generator) > 0.2
    prediction = (0.6 * truth + 0.1 * torch.rand(truth.shape, generator=generator)).clamp(0, 1)
    return prediction, truth, mask


def scores_of(*batches):
    metric = AlbedoError()
    for batch in batches:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.compute().items()}


def expected_of(prediction, truth, mask):
    scores = []
    for p, t, m in zip(*(tensor.double().numpy() for tensor in (prediction, truth, mask)), strict=True):
        known = m[0] > 0
        p, t = p[:, known], t[:, known]
        scaled = p * (np.vdot(p, t) / np.vdot(p, p))
        square = [((x.clip(0, 1) ** (1 / 2.2) - t ** (1 / 2.2)) ** 2).mean() for x in (scaled, p)]
        roots = [math.sqrt(((x - t) ** 2).mean()) for x in (scaled, p, t.mean(axis=1, keepdims=True))]
        scores.append([*roots[:2], *(10 * math.log10(1 / s) for s in square), roots[2]])
    return np.mean(scores, axis=0)


def test_they_are_those_of_the_formulas_and_unknown_pixels_do_not_count():
    prediction, truth, mask = images()
    expected = expected_of(prediction, truth, mask)
    spoiled = torch.where(mask, prediction, torch.nan), torch.where(mask, truth, torch.inf), mask
    assert list(scores_of(spoiled).values()) == pytest.approx(expected.tolist(), rel=1e-6)


def test_a_scale_per_image_changes_only_what_is_not_invariant():
    prediction, truth, mask = images()
    scaled = prediction * torch.tensor([0.5, 0.7, 0.9])[:, None, None, None]
    first, second = scores_of((prediction, truth, mask)), scores_of((scaled, truth, mask))
    for name in ("si_rmse", "si_psnr", "si_rmse_constant"):
        assert second[name] == pytest.approx(first[name], rel=1e-5)
    assert second["rmse"] > 1.2 * first["rmse"] and second["psnr"] < first["psnr"] - 1


def test_images_without_known_pixels_are_not_counted_and_batches_add_up():
    prediction, truth, mask = images()
    apart = scores_of(*((prediction[i : i + 1], truth[i : i + 1], mask[i : i + 1]) for i in range(3)))
    assert apart == pytest.approx(scores_of((prediction, truth, mask)), rel=1e-9)
    nothing = (prediction, truth, torch.zeros_like(mask))
    assert scores_of((prediction, truth, mask), nothing) == apart
    assert math.isnan(scores_of(nothing)["psnr"])


def test_a_black_prediction_has_a_score_and_a_perfect_one_the_best():
    _, truth, mask = images()
    black, perfect = scores_of((torch.zeros_like(truth), truth, mask)), scores_of((truth, truth, mask))
    assert all(map(math.isfinite, black.values())) and black["si_rmse"] > black["si_rmse_constant"]
    assert perfect["si_rmse"] < 1e-9 and perfect["psnr"] == pytest.approx(100)
