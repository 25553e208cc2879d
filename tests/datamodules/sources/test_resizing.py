import numpy as np
import pytest

from datamodules.sources.resizing import resize_image, resize_nearest, resize_normals


def test_depth_is_never_averaged_across_an_edge():
    depth = np.where(np.arange(16) < 7, 1.0, 50.0)[None].repeat(12, 0)
    assert set(np.unique(resize_nearest(depth, (5, 7)))) == {1.0, 50.0}


def test_nearest_takes_the_pixel_under_the_new_centre_and_does_not_shift_the_image():
    columns = np.arange(10, dtype=np.float32)[None].repeat(4, 0)
    assert resize_nearest(columns, (4, 5))[0].tolist() == [1, 3, 5, 7, 9]
    assert resize_nearest(columns, (4, 2))[0].tolist() == [2, 7]
    assert resize_nearest(np.arange(768)[:, None], (480, 1))[:4, 0].tolist() == [0, 2, 4, 5]


def test_fine_texture_becomes_grey_and_not_noise():
    stripes = np.tile(np.array([0, 1], np.float32)[:, None], (32, 64, 1))[:, :, None].repeat(3, 2).reshape(64, 64, 3)
    stripes = np.tile((np.arange(64) % 2).astype(np.float32)[None, :, None], (64, 1, 3))
    assert np.abs(resize_image(stripes, (20, 20))[:, 2:-2] - 0.5).max() < 0.1


def test_colour_channels_stay_apart_when_resized():
    image = np.zeros((8, 8, 3), np.float32)
    image[..., 0] = 1
    np.testing.assert_allclose(resize_image(image, (5, 4)), np.tile([1.0, 0, 0], (5, 4, 1)), atol=1e-6)


def normals_with(columns):
    return np.asarray(columns, np.float32).T[:, None].repeat(8, 1)


def test_averaged_normals_are_unit_vectors():
    resized = resize_normals(normals_with([[1, 0, 0], [0, 0, 1]] * 4), (4, 4))
    np.testing.assert_allclose(np.linalg.norm(resized, axis=0), 1, atol=1e-6)
    np.testing.assert_allclose(resized[:, 0, 0], [0.5**0.5, 0, 0.5**0.5], atol=1e-6)


def test_unknown_pixels_do_not_drag_a_normal_along():
    resized = resize_normals(normals_with([[0, 0, 0], [0.6, 0, 0.8]] * 4), (4, 4))
    np.testing.assert_allclose(resized[:, 1, 1], [0.6, 0, 0.8], atol=1e-6)


def test_a_mostly_unknown_pixel_stays_unknown():
    resized = resize_normals(normals_with([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]] * 2), (8, 2))
    assert not resized.any()


def test_opposite_normals_leave_no_direction():
    assert not resize_normals(normals_with([[1, 0, 0], [-1, 0, 0]] * 4), (4, 4)).any()


@pytest.mark.parametrize("resize", [resize_nearest, resize_image])
def test_the_same_size_changes_nothing(resize):
    values = np.random.default_rng(0).uniform(0, 1, (6, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize(values, (6, 9)), values)
