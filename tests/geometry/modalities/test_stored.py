"""How modalities lie in shards: they change size without inventing values, and say what is wrong with them."""

import json

import numpy as np
import pytest

from geometry.errors import InputError
from geometry.modalities import Depth, Normals, registered
from geometry.modalities.statistics import ValueStatistics
from geometry.modalities.stored import rounded_limits

SIZE = (6, 10)


def test_depth_is_never_averaged_across_an_edge():
    depth = np.where(np.arange(16) < 7, 1.0, 50.0)[None].repeat(12, 0)
    assert set(np.unique(Depth().resize(depth, (5, 7)))) == {1.0, 50.0}


def test_nearest_takes_the_pixel_under_the_new_centre_and_does_not_shift_the_image():
    columns = np.arange(10, dtype=np.float32)[None].repeat(4, 0)
    assert Depth().resize(columns, (4, 5))[0].tolist() == [1, 3, 5, 7, 9]
    assert Depth().resize(columns, (4, 2))[0].tolist() == [2, 7]
    assert Depth().resize(np.arange(768)[:, None], (480, 1))[:4, 0].tolist() == [0, 2, 4, 5]


def normals_with(columns):
    return np.asarray(columns, np.float32).T[:, None].repeat(8, 1)


def test_averaged_normals_are_unit_vectors():
    resized = Normals().resize(normals_with([[1, 0, 0], [0, 0, 1]] * 4), (4, 4))
    np.testing.assert_allclose(np.linalg.norm(resized, axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(resized[:, 0, 0], [0.5**0.5, 0, 0.5**0.5], atol=1e-6)


def test_unknown_pixels_do_not_drag_a_normal_along():
    resized = Normals().resize(normals_with([[0, 0, 0], [0.6, 0, 0.8]] * 4), (4, 4))
    np.testing.assert_allclose(resized[:, 1, 1], [0.6, 0, 0.8], atol=1e-6)


def test_a_mostly_unknown_pixel_stays_unknown():
    resized = Normals().resize(normals_with([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]] * 2), (8, 2))
    assert not resized.any()


def test_opposite_normals_leave_no_direction():
    assert not Normals().resize(normals_with([[1, 0, 0], [-1, 0, 0]] * 4), (4, 4)).any()


@pytest.mark.parametrize("name", sorted(registered()))
def test_the_same_size_changes_nothing_and_unknown_stays_unknown(name):
    modality = registered()[name]()
    values = np.full(modality.stored_shape(*SIZE), modality.unknown, np.float32)
    assert not modality.is_known(modality.resize(values, (3, 5))).any()
    assert modality.resize(values, (3, 5)).shape == modality.stored_shape(3, 5)
    values = np.random.default_rng(0).uniform(0.1, 0.9, values.shape).astype(np.float32)
    np.testing.assert_array_equal(modality.resize(values, SIZE), values)
    assert modality.is_known(values).shape == SIZE and modality.is_known(values).all()


@pytest.mark.parametrize("name", sorted(registered()))
def test_what_is_all_unknown_has_no_problem_and_no_quantiles(name):
    modality = registered()[name]()
    values = modality.store(np.full(modality.stored_shape(*SIZE), modality.unknown, np.float32))
    assert not list(modality.problems(values.astype(np.float32), (0.1, 9.0)))
    facts = modality.facts(values)
    assert facts.share == 0 and set(facts.quantiles) == {None}
    json.dumps(modality.describe(facts), allow_nan=False)


def test_limits_are_rounded_like_stored_values():
    stored = float(np.float16(70.05))
    assert stored > 70.05 and rounded_limits((0.1, 70.05))[1] == stored


def test_files_of_numbers_without_a_meaning_are_refused():
    with pytest.raises(InputError, match="int64 have no meaning as depth"):
        Depth().read_file(np.ones(SIZE, np.int64))


def statistics_of(*images):
    total = ValueStatistics()
    for image in images:
        numbers = image[image != 0]
        counted = ValueStatistics()
        limits = (float(numbers.min()), float(numbers.max())) if numbers.size else (None, None)
        counted.add_image(image != 0, numbers, *limits)
        total.add(ValueStatistics.from_json(json.loads(json.dumps(counted.to_json()))))
    return total


@pytest.fixture
def images():
    images = np.random.default_rng(0).lognormal(1, 1, (3, 40, 50)).astype(np.float16)
    images[1, :10], images[2] = 0, 0
    return images


@pytest.mark.parametrize("sign", [1, -1])
def test_quantiles_of_a_whole_data_set_are_within_half_a_percent(images, sign):
    total = statistics_of(*(sign * images))
    known = sign * images[images > 0].astype(np.float64)
    for share in (0.02, 0.5, 0.98):
        assert total.quantile(share) == pytest.approx(np.quantile(known, share), rel=5e-3)
    assert total.share == known.size / images.size
    assert (total.minimum, total.maximum) == (known.min(), known.max())


def test_negative_and_positive_numbers_are_in_order():
    numbers = np.arange(-50, 51).astype(np.float16).reshape(1, -1)
    assert statistics_of(numbers).quantile(0.25) == pytest.approx(-25, abs=1.1)
    assert statistics_of(numbers).quantile(0.75) == pytest.approx(25, abs=1.1)


def test_parts_add_up_to_the_same_in_any_order_and_through_json(images):
    assert statistics_of(*images) == statistics_of(*images[::-1])


def test_without_any_number_there_are_no_quantiles(images):
    assert statistics_of(images[2]).summary() == {
        "share": 0.0,
        "min": None,
        "max": None,
        "quantiles": {"0.02": None, "0.5": None, "0.98": None},
    }
