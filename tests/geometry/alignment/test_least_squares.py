import pytest
import torch

from geometry import align_scale_shift, alignment_is_defined


def images(*values: list[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One image of one row per list."""
    return torch.tensor(values, dtype=dtype)[:, None, None, :]


def least_squares(prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(scale, shift) of one image by the textbook solver in float64."""
    mask = mask.expand_as(prediction)
    values = prediction[mask].double()
    matrix = torch.stack([values, torch.ones_like(values)], dim=1)
    return torch.linalg.lstsq(matrix, target[mask].double()[:, None]).solution[:, 0]


def random_problem(channels: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.rand(3, channels, 8, 9, generator=generator) * 2 - 1
    noise = torch.randn(3, channels, 8, 9, generator=generator)
    slope = torch.tensor([2.0, -3.0, 0.5]).view(3, 1, 1, 1)
    mask = torch.rand(3, 1, 8, 9, generator=generator) < 0.6
    return prediction, slope * prediction + 5 + 0.1 * noise, mask


def test_three_points_on_a_line_give_the_numbers_of_the_docstring():
    scale, shift = align_scale_shift(images([-1, 0, 1]), images([2, 4, 6]), torch.ones(1, 1, 1, 3, dtype=torch.bool))
    assert scale.tolist() == [2.0]
    assert shift.tolist() == [4.0]


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_gets_its_own_least_squares_fit_negative_scales_included(channels):
    prediction, target, mask = random_problem(channels)
    scale, shift = align_scale_shift(prediction, target, mask)
    assert scale.shape == shift.shape == (3,)
    assert scale.dtype == torch.float32
    expected = torch.stack([least_squares(prediction[i], target[i], mask[i]) for i in range(3)])
    torch.testing.assert_close(torch.stack([scale, shift], dim=1).double(), expected, rtol=1e-6, atol=1e-6)
    assert scale[1] < 0


@pytest.mark.parametrize("std", [1e-4, 1e-3])
def test_a_nearly_flat_prediction_is_still_scaled_within_a_thousandth(std):
    generator = torch.Generator().manual_seed(0)
    shape = torch.randn(1, 1, 100, 120, generator=generator, dtype=torch.float64)
    prediction = (1 + std * shape).float()
    mask = torch.rand(1, 1, 100, 120, generator=generator) < 0.9
    target = (3 + 0.7 * shape).float()
    scale, shift = align_scale_shift(prediction, target, mask)
    assert alignment_is_defined(prediction, mask).all()
    assert abs(scale.item() * std / 0.7 - 1) < 1e-3
    expected = least_squares(prediction[0], target[0], mask[0])
    torch.testing.assert_close(torch.stack([scale, shift])[:, 0].double(), expected, rtol=1e-5, atol=0)


def test_scale_does_not_depend_on_the_unit_of_the_prediction():
    prediction, target, mask = random_problem()
    scale, shift = align_scale_shift(prediction, target, mask)
    for factor in (1e-12, 1e12):
        scaled, shifted = align_scale_shift(prediction * factor, target, mask)
        torch.testing.assert_close(scaled * factor, scale, rtol=1e-5, atol=0)
        torch.testing.assert_close(shifted, shift, rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_upcast_before_any_arithmetic(dtype):
    prediction, target, mask = random_problem()
    prediction, target = prediction.to(dtype), target.to(dtype)
    upcast = align_scale_shift(prediction.float(), target.float(), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = align_scale_shift(prediction, target, mask)
    assert result[0].dtype == torch.float32
    assert torch.equal(result[0], upcast[0]) and torch.equal(result[1], upcast[1])


def test_gradients_flow_through_scale_and_shift():
    prediction, target, mask = random_problem()
    prediction = prediction.double()[:, :, :3, :4].clone().requires_grad_()
    target = target.double()[:, :, :3, :4].clone().requires_grad_()
    mask = mask[:, :, :3, :4]
    assert alignment_is_defined(prediction, mask).all()
    assert torch.autograd.gradcheck(lambda p, t: align_scale_shift(p, t, mask), (prediction, target))


@pytest.mark.parametrize("garbage", [torch.inf, -torch.inf, torch.nan])
def test_garbage_outside_the_mask_reaches_neither_value_nor_gradient(garbage):
    prediction, target, mask = random_problem()
    clean = align_scale_shift(prediction, target, mask)
    dirty = [torch.where(mask, image, garbage).requires_grad_() for image in (prediction, target)]
    scale, shift = align_scale_shift(*dirty, mask)
    assert torch.equal(scale, clean[0]) and torch.equal(shift, clean[1])
    (scale + shift).sum().backward()
    for image in dirty:
        assert image.grad.isfinite().all()
        assert (image.grad[~mask] == 0).all()
        assert (image.grad[mask] != 0).any()


def test_images_without_a_scale_get_the_mean_of_their_target_and_no_gradient():
    prediction = images([1, 2, 3, 4], [1, 2, 3, 4], [0.1, 0.1, 0.1, 0.1], [1, 2, 3, 4])
    prediction = prediction.requires_grad_()
    target = images([1, 2, 3, 5], [1, 2, 3, 5], [1, 2, 3, 5], [1, 3, 5, 7])
    mask = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 1, 1]]).bool()[:, None, None]
    assert alignment_is_defined(prediction, mask).tolist() == [False, False, False, True]
    scale, shift = align_scale_shift(prediction, target, mask)
    assert scale.tolist() == [0.0, 0.0, 0.0, 2.0]
    assert shift.tolist() == [0.0, 5.0, 2.0, -1.0]
    (scale.sum() + shift.sum()).backward()
    assert (prediction.grad[:3] == 0).all()
    assert prediction.grad.isfinite().all()


def test_the_colours_of_one_single_pixel_do_not_make_a_fit():
    prediction = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[[[True, False], [False, False]]]])
    assert not alignment_is_defined(prediction, mask).any()
    mask[0, 0, 1, 1] = True
    assert alignment_is_defined(prediction, mask).all()


def test_rounding_noise_on_a_constant_is_no_basis_for_a_scale():
    constant = torch.full((1, 1, 10, 10), 0.7)
    constant[..., ::2] = torch.nextafter(constant[..., ::2], torch.tensor(1.0))
    mask = torch.ones_like(constant, dtype=torch.bool)
    assert constant.unique().numel() == 2
    assert not alignment_is_defined(constant, mask).any()


@pytest.mark.parametrize("garbage", [torch.inf, torch.nan])
def test_a_broken_prediction_inside_the_mask_is_not_swept_under_the_carpet(garbage):
    prediction, target, mask = random_problem()
    prediction[0][mask[0]] = torch.where(torch.arange(int(mask[0].sum())) == 3, garbage, prediction[0][mask[0]])
    assert alignment_is_defined(prediction, mask).all()
    scale, _ = align_scale_shift(prediction, target, mask)
    assert scale.isnan().tolist() == [True, False, False]


def test_shapes_that_would_broadcast_to_another_problem_are_refused():
    prediction, target, mask = random_problem()
    with pytest.raises(ValueError, match="target must have the shape"):
        align_scale_shift(prediction, target[:, 0], mask)
    with pytest.raises(ValueError, match="valid_mask must be bool"):
        align_scale_shift(prediction, target, mask[:1])
    with pytest.raises(ValueError, match="valid_mask must be bool"):
        align_scale_shift(prediction, target, mask.float())
    with pytest.raises(ValueError, match="prediction must be"):
        align_scale_shift(prediction[0], target[0], mask[0])
