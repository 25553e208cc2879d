import pytest
import torch

from geometry.masked import select


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_selected_to_the_bit_also_where_they_are_no_numbers(dtype):
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 1.5], dtype=dtype)
    values, others = odd.repeat(7, 1)[None], odd.repeat(7, 1).T[None].contiguous()
    mask = torch.rand(1, 7, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    bits = torch.int32 if dtype == torch.float32 else torch.int64
    for other in (others, 0.0, 1.0, float("inf"), -1e30):
        expected = torch.where(mask, values, torch.as_tensor(other, dtype=dtype))
        assert torch.equal(select(mask, values, other).view(bits), expected.view(bits))


def test_a_mask_of_one_channel_selects_all_channels():
    values, mask = torch.rand(3, 5, 6), torch.rand(1, 5, 6) > 0.5
    window = torch.rand(3, 7, 8)[:, 1:6, 2:]
    assert torch.equal(select(mask, values, window), torch.where(mask, values, window))
    assert torch.equal(select(mask, window, values), torch.where(mask, window, values))
