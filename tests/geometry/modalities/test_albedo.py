"""Albedo: black is a value and not unknown, averages are of known light, colours are for eyes."""

import numpy as np
import pytest
import torch

from geometry.batch import ANY_VALUE
from geometry.colorize import UNKNOWN_GREY
from geometry.modalities import modality_named
from geometry.modalities.albedo import Albedo

ALBEDO = Albedo()


def constant(color, size=(4, 6)):
    return np.broadcast_to(np.float32(color)[:, None, None], (3, *size)).copy()


def test_it_is_known_by_its_name():
    assert modality_named("albedo") is Albedo


def test_black_is_known_and_unknown_is_not():
    values = constant((0, 0, 0))
    values[:, 1, 2] = ALBEDO.unknown
    values[0, 2, 3] = np.nan
    target = ALBEDO.restore(torch.from_numpy(values)[None].clone(), ANY_VALUE)
    expected = np.ones((4, 6), bool)
    expected[1, 2] = expected[2, 3] = False
    np.testing.assert_array_equal(target.mask[0, 0].numpy(), expected)
    np.testing.assert_array_equal(ALBEDO.is_known(values), expected)
    assert not target.values.isnan().any() and (target.values == 0).all()


def test_unknown_pixels_do_not_darken_the_average_and_few_known_ones_are_not_enough():
    values = constant((0.8, 0.4, 0.2), (8, 8))
    values[:, :, 3] = ALBEDO.unknown
    resized = ALBEDO.resize(values, (4, 4))
    np.testing.assert_allclose(resized, constant((0.8, 0.4, 0.2), (4, 4)), atol=1e-6)
    values[:, :, 1:5] = ALBEDO.unknown
    assert not ALBEDO.is_known(ALBEDO.resize(values, (8, 2)))[:, 0].any()


def test_image_files_are_taken_as_colours_and_numbers_as_linear_albedo():
    linear = np.full((2, 2, 3), 0.5, np.float32)
    linear[0, 0] = np.nan
    linear[0, 1] = 1.5
    values = ALBEDO.read_file(linear)
    assert ALBEDO.is_known(values).tolist() == [[False, False], [True, True]] and values[0, 1, 1] == 0.5
    colors = np.full((2, 2, 3), round(255 * 0.5 ** (1 / 2.2)), np.uint8)
    np.testing.assert_allclose(ALBEDO.read_file(colors), 0.5, atol=0.005)
    assert ALBEDO.read_file(np.zeros((2, 2, 3), np.uint8)).max() == 0


def test_colours_are_grey_where_unknown_and_brighter_than_linear_elsewhere():
    values, mask = torch.full((1, 3, 2, 2), 0.2), torch.tensor([[[[True, False], [True, True]]]])
    colors = ALBEDO.colorize(values, mask)
    assert colors[0, 0, 0].tolist() == pytest.approx([0.2 ** (1 / 2.2), UNKNOWN_GREY])


def test_numbers_beyond_one_are_a_problem_of_a_shard():
    values = constant((1.5, 0, 0))
    assert "leaves 0 to 1" in next(ALBEDO.problems(values, ALBEDO.possible_values))
    assert not list(ALBEDO.problems(constant((1, 0, 0)), ALBEDO.possible_values))


def test_the_image_for_the_vae_spans_its_range():
    values = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 3, 1, 1)
    target = ALBEDO.restore(values.clone(), ANY_VALUE)
    assert ALBEDO.to_image(target).flatten().tolist() == [-1, -0.5, 1]
    torch.testing.assert_close(ALBEDO.from_image(ALBEDO.to_image(target)), values)
