import pytest
import torch

from geometry import colorize_depth, colorize_error, colorize_normals
from geometry.colorize import _quantile, eight_bit

GREY = [0.5, 0.5, 0.5]


def ramp(low: float, high: float) -> torch.Tensor:
    return torch.linspace(low, high, 101).view(1, 1, 1, 101)


def everywhere(image: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(image, dtype=torch.bool)


def lightness(visualisation: torch.Tensor) -> torch.Tensor:
    """CIELAB lightness (W,) of a one-row visualisation."""
    linear = torch.where(visualisation > 0.04045, ((visualisation + 0.055) / 1.055) ** 2.4, visualisation / 12.92)
    luminance = (linear * torch.tensor([0.2126, 0.7152, 0.0722]).view(3, 1, 1)).sum(dim=1).flatten()
    return torch.where(luminance > 0.008856, 116 * luminance ** (1 / 3) - 16, 903.3 * luminance)


def test_near_is_bright_and_warm_and_far_is_dark_and_blue():
    visualisation = colorize_depth(ramp(1, 5), near=1.0, far=5.0)
    assert visualisation.shape == (1, 3, 1, 101) and visualisation.dtype == torch.float32
    torch.testing.assert_close(visualisation[0, :, 0, 0], torch.tensor([1.0, 0.957, 0.780]), atol=2e-3, rtol=0)
    torch.testing.assert_close(visualisation[0, :, 0, -1], torch.tensor([0.0, 0.090, 0.220]), atol=2e-3, rtol=0)
    assert (lightness(visualisation).diff() < 0).all()


def test_equal_steps_of_depth_are_equal_steps_of_lightness():
    steps = -lightness(colorize_depth(ramp(1, 5), near=1.0, far=5.0)).diff()
    assert steps.max() < 1.5 * steps.mean()
    assert steps.min() > 0.5 * steps.mean()


def test_each_image_uses_its_own_range_and_outliers_do_not_darken_it():
    depth = torch.cat([ramp(1, 5), ramp(10, 50)])
    visualisation = colorize_depth(depth)
    torch.testing.assert_close(visualisation[0], visualisation[1], atol=1e-5, rtol=0)
    depth[0, 0, 0, -1] = 1e6
    torch.testing.assert_close(colorize_depth(depth)[0, :, 0, :-1], visualisation[0, :, 0, :-1], atol=1e-3, rtol=0)


def test_values_beyond_near_and_far_keep_the_last_colour():
    visualisation = colorize_depth(ramp(0, 10), near=4.0, far=6.0)
    assert torch.equal(visualisation[..., 0], visualisation[..., 40]) and torch.equal(
        visualisation[..., -1], visualisation[..., 60]
    )


def test_unknown_depth_is_grey_and_does_not_stretch_the_range():
    depth = ramp(1, 5)
    depth[..., 0] = 0
    depth[..., 50] = torch.nan
    depth[..., 51] = torch.inf
    mask = everywhere(depth)
    mask[..., 0] = False
    visualisation = colorize_depth(depth, mask)
    for column in (0, 50, 51):
        assert visualisation[0, :, 0, column].tolist() == GREY
    known = [column for column in range(101) if column not in (0, 50, 51)]
    unspoilt = colorize_depth(ramp(1, 5))[..., known]
    torch.testing.assert_close(visualisation[..., known], unspoilt, atol=0.05, rtol=0)
    grey_levels = (visualisation[..., known] - 0.5).abs().amax(dim=1)
    assert grey_levels.min() > 0.1, "a colour of the map could be taken for unknown"


def test_images_without_range_are_still_visualisations():
    constant = torch.full((1, 1, 2, 2), 3.0)
    middle = colorize_depth(constant)
    torch.testing.assert_close(middle, colorize_depth(ramp(1, 5), near=1.0, far=5.0)[..., 50:51].expand(-1, -1, 2, 2))
    assert (colorize_depth(constant, ~everywhere(constant)) == 0.5).all()


def test_visualisations_of_more_pixels_than_torch_can_sort_are_possible():
    depth = torch.ones(1, 1, 1, 1).expand(1, 1, 4100, 4100)
    with pytest.raises(RuntimeError, match="too large"):
        torch.nanquantile(depth.flatten(1), 0.5, dim=1)
    assert _quantile(depth, torch.tensor(True), 0.5).item() == 1.0


def test_larger_errors_are_darker_and_saturate_at_the_maximum():
    error = ramp(0, 2)
    visualisation = colorize_error(error, everywhere(error), maximum=1.0)
    assert (lightness(visualisation[..., :51]).diff() < 0).all()
    assert torch.equal(visualisation[..., 50], visualisation[..., -1])
    assert torch.equal(colorize_error(-error, everywhere(error), maximum=1.0), visualisation)
    torch.testing.assert_close(visualisation[0, :, 0, 0], torch.tensor([0.976, 0.965, 0.937]), atol=2e-3, rtol=0)
    assert colorize_error(error, ~everywhere(error), maximum=1.0)[0, :, 0, 7].tolist() == GREY


def test_an_error_scale_without_length_is_refused():
    with pytest.raises(ValueError, match="maximum must be larger than 0"):
        colorize_error(ramp(0, 1), everywhere(ramp(0, 1)), maximum=0.0)


def test_normals_have_the_colours_people_know():
    normals = torch.tensor([[0.0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0], [torch.nan, 0, 0]]).T.reshape(1, 3, 1, 5)
    visualisation = colorize_normals(normals)[0, :, 0].T.tolist()
    assert visualisation == [[0.5, 0.5, 1], [0.5, 1, 0.5], [1, 0.5, 0.5], GREY, GREY]
    hidden = colorize_normals(normals, torch.zeros(1, 1, 1, 5, dtype=torch.bool))
    assert (hidden == 0.5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_visualisations_are_float32_whatever_comes_in(dtype):
    values = ramp(0, 1).to(dtype)
    assert colorize_depth(values).dtype == torch.float32
    assert colorize_error(values, everywhere(values), 1.0).dtype == torch.float32
    assert colorize_normals(values.expand(-1, 3, -1, -1)).dtype == torch.float32


def test_files_hold_the_nearest_of_256_levels_with_colours_last():
    colors = torch.tensor([[0.0, 1.0], [0.4999 / 255, 0.5001 / 255], [254.6 / 255, 128 / 255]])[:, None]
    assert eight_bit(colors).tolist() == [[[0, 0, 255], [255, 1, 128]]]
    assert eight_bit(colors).dtype == torch.uint8
    assert torch.equal(eight_bit(colors[None]), eight_bit(colors)[None])
