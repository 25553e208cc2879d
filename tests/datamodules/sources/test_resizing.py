import numpy as np

from datamodules.sources.resizing import resize_image


def test_fine_texture_becomes_grey_and_not_noise():
    stripes = np.tile(np.array([0, 1], np.float32)[:, None], (32, 64, 1))[:, :, None].repeat(3, 2).reshape(64, 64, 3)
    stripes = np.tile((np.arange(64) % 2).astype(np.float32)[None, :, None], (64, 1, 3))
    assert np.abs(resize_image(stripes, (20, 20))[:, 2:-2] - 0.5).max() < 0.1


def test_colour_channels_stay_apart_when_resized():
    image = np.zeros((8, 8, 3), np.float32)
    image[..., 0] = 1
    np.testing.assert_allclose(resize_image(image, (5, 4)), np.tile([1.0, 0, 0], (5, 4, 1)), atol=1e-6)


def test_the_same_size_changes_nothing():
    values = np.random.default_rng(0).uniform(0, 1, (6, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize_image(values, (6, 9)), values)
