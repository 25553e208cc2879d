import numpy as np
import pytest

from geometry.padded_images import Padding, bits_of, keep, select, shifted

ODD = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 1.5]


def same_bits(one, other):
    bits = np.int32 if one.dtype == np.float32 else np.int64
    return np.array_equal(one.view(bits), other.view(bits))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_selected_to_the_bit_also_where_they_are_no_numbers(dtype):
    values = np.tile(np.array(ODD, dtype), (7, 1))[None]
    others = np.ascontiguousarray(values.swapaxes(-1, -2))
    mask = np.random.default_rng(0).random((1, 7, 7)) > 0.5
    kept = bits_of(mask, values.dtype)
    for other in (others, 0.0, 1.0, float("inf"), -1e30):
        assert same_bits(select(kept, values, other), np.where(mask, values, np.asarray(other, dtype)))
    assert same_bits(keep(values.copy(), kept), np.where(mask, values, dtype(0)))


def test_a_mask_of_one_channel_selects_all_channels():
    rng = np.random.default_rng(0)
    values, others, mask = rng.random((3, 30)), rng.random((3, 40))[:, 5:35], rng.random((1, 30)) > 0.5
    assert same_bits(select(bits_of(mask, values.dtype), values, others), np.where(mask, values, others))


def test_what_lies_beside_a_pixel_is_found_by_shifting():
    image = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 7)
    padding = Padding(5, 7, 3)
    padded = padding.pad(image, -1.0)
    inside = slice(3 * padding.row, 8 * padding.row)
    assert np.array_equal(padding.crop(padded[..., inside]), image)
    for down, right in ((1, 0), (0, -2), (-2, 1), (2, 2)):
        expected = np.full_like(image, -1)
        rows, columns = np.arange(5) + down, np.arange(7) + right
        is_there = ((rows >= 0) & (rows < 5))[:, None] & ((columns >= 0) & (columns < 7))
        expected[:, is_there] = image[:, np.clip(rows, 0, 4)[:, None], np.clip(columns, 0, 6)][:, is_there]
        assert np.array_equal(padding.crop(shifted(padded, inside, down * padding.row + right)), expected)


def test_bands_cover_every_row_once():
    padding = Padding(1000, 640, 3)
    bands = list(padding.bands())
    assert [row for first, last, _ in bands for row in range(first, last)] == list(range(1000))
    assert all(band.stop - band.start == (last - first) * padding.row for first, last, band in bands)
    assert len(bands) > 3


def test_the_border_beside_the_image_is_as_the_pixels_that_it_touches():
    image = np.random.default_rng(0).random((2, 4, 6))
    padding = Padding(4, 6, 3)
    padded = padding.pad(image, 0.0)
    padding.repeat_edges(padded)
    assert np.array_equal(
        padded.reshape(2, 10, 12)[:, 2:-2, 2:-2], np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    )
