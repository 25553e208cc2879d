"""What a curve of calibration says of spreads whose worth is known."""

import numpy as np
import pytest
import torch

from geometry.batch import Target
from geometry.modalities import Depth, Normals
from geometry.modalities.albedo import Albedo
from lightning_modules.evaluation.calibration_figure import calibration_figure
from lightning_modules.metrics.calibration import Calibration
from tests.evaluations import calibration_of

SIZE = (40, 50)


def scene(seed=0):
    """A depth, and a prediction of it that is off by noise whose size differs from pixel to pixel."""
    generator = torch.Generator().manual_seed(seed)
    depth = 2 + 3 * torch.rand(1, 1, *SIZE, generator=generator, dtype=torch.float64)
    deviation = 0.005 + 0.1 * torch.rand(depth.shape, generator=generator, dtype=torch.float64)
    noise = deviation * torch.randn(depth.shape, generator=generator, dtype=torch.float64)
    known = torch.rand(depth.shape, generator=generator) > 0.2
    return depth, depth + noise, deviation, known


def measured(modality, prediction, target, known, spread):
    metric = Calibration(modality)
    metric.update(prediction, target, known, spread)
    return {name: float(value) for name, value in metric.compute().items()}, metric.describe()


def error_in_metres(prediction, target, known):
    return (Depth().align(prediction, Target(target, known)) - target).abs()


def test_a_spread_that_equals_the_error_has_no_area_and_a_ratio_of_one():
    depth, prediction, _, known = scene()
    error = error_in_metres(prediction, depth, known)
    # The prediction's own unit is 4 units to the metre, shifted: only the alignment knows.
    spread = 4 * error / fitted_scale(prediction, depth, known)
    found, described = measured(Depth(), 4 * prediction - 7, depth, known, spread)
    assert found["ause"] == pytest.approx(0, abs=1e-9)
    assert found["error_over_spread"] == pytest.approx(1, rel=1e-6)
    assert 0.2 < found["ause_chance"] < 0.8
    for row in described["bins"]:
        assert row["rms_error"] == pytest.approx(row["rms_spread"], rel=1e-6)
    assert sum(row["pixel_share"] for row in described["bins"]) == pytest.approx(1)
    assert described["unit"] == "m"


def fitted_scale(prediction, depth, known):
    x, y = prediction[known].numpy(), depth[known].numpy()
    return float(np.polyfit(x, y, 1)[0])


def test_a_spread_without_meaning_has_the_area_of_chance():
    depth, prediction, _, known = scene()
    generator = torch.Generator().manual_seed(1)
    areas = [
        measured(Depth(), prediction, depth, known, torch.rand(depth.shape, generator=generator).double())[0]
        for _ in range(20)
    ]
    chance = areas[0]["ause_chance"]
    assert np.mean([area["ause"] for area in areas]) == pytest.approx(chance, abs=0.02)
    constant, _ = measured(Depth(), prediction, depth, known, torch.ones_like(depth))
    assert constant["ause"] == pytest.approx(chance, abs=1e-9), "pixels of equal spread must not count by their place"


def test_the_true_deviation_of_the_noise_is_better_than_chance_and_right_on_average():
    depth, prediction, deviation, known = scene()
    found, described = measured(Depth(), prediction, depth, known, deviation)
    assert found["ause"] < 0.7 * found["ause_chance"]
    assert found["error_over_spread"] == pytest.approx(1, abs=0.05)
    large = [row for row in described["bins"] if row["pixel_share"] > 0.05]
    assert large and all(row["rms_error"] == pytest.approx(row["rms_spread"], rel=0.25) for row in large)


def test_the_largest_spread_where_the_error_is_smallest_is_worse_than_chance():
    depth, prediction, _, known = scene()
    error = error_in_metres(prediction, depth, known)
    found, _ = measured(Depth(), prediction, depth, known, 1 - error / error.max())
    assert found["ause"] > 1.5 * found["ause_chance"]


def test_the_curve_is_that_of_a_plain_transcription():
    depth, prediction, deviation, known = scene()
    described = measured(Depth(), prediction, depth, known, deviation)[1]
    error = error_in_metres(prediction, depth, known)
    curve, oracle = calibration_of(error[known].numpy(), deviation[known].numpy())
    assert described["error_left"] == pytest.approx(curve, abs=1e-12)
    assert described["error_left_oracle"] == pytest.approx(oracle, abs=1e-12)


@pytest.mark.parametrize("modality", [Normals(), Albedo()], ids=["normals", "albedo"])
def test_other_modalities_compare_in_their_own_unit(modality):
    generator = torch.Generator().manual_seed(2)
    truth = torch.nn.functional.normalize(torch.rand(1, 3, *SIZE, generator=generator) + 0.5, dim=1)
    prediction = modality.renormalize(truth + 0.2 * torch.rand(truth.shape, generator=generator))
    known = torch.ones(1, 1, *SIZE, dtype=torch.bool)
    error = modality.calibration_error(prediction, Target(truth, known))
    found, _ = measured(modality, prediction, truth, known, error)
    assert found["ause"] == pytest.approx(0, abs=1e-6) and found["error_over_spread"] == pytest.approx(1, rel=1e-5)


def test_a_perfect_prediction_and_an_image_without_truth_do_not_spoil_the_mean():
    depth, prediction, deviation, known = scene()
    metric = Calibration(Depth())
    metric.update(prediction, depth, known, deviation)
    alone = float(metric.compute()["ause"])
    metric.update(prediction, depth, torch.zeros_like(known), deviation)
    assert float(metric.compute()["ause"]) == alone
    metric.update(depth, depth, known, deviation)
    assert np.isfinite(float(metric.compute()["ause"]))


def test_the_figure_shows_both_curves():
    depth, prediction, deviation, known = scene()
    figure = calibration_figure(measured(Depth(), prediction, depth, known, deviation)[1])
    assert figure.shape == (420, 840, 3) and figure.dtype == np.uint8
    ours, oracle = (np.all(figure == color, axis=-1).sum() for color in ((164, 59, 32), (60, 120, 60)))
    assert ours > 300 and oracle > 200
