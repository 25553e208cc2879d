import pytest
import torch
from torch.nn.attention import SDPBackend

from lightning_modules.training.attention import prefer_attention


@pytest.fixture(autouse=True)
def own_choice():
    yield
    prefer_attention("auto")


def chosen():
    query = torch.rand(1, 2, 8, 4)
    return SDPBackend(torch._fused_sdp_choice(query, query, query))


def test_attention_is_computed_by_the_kernel_that_was_asked_for_until_another_is():
    own = chosen()
    prefer_attention("math")
    assert chosen() == SDPBackend.MATH
    prefer_attention("flash")
    assert chosen() == SDPBackend.FLASH_ATTENTION
    prefer_attention("math")
    prefer_attention("auto")
    assert chosen() == own


@pytest.mark.parametrize("kernel", ["flash", "efficient", "cudnn"])
def test_where_a_kernel_cannot_be_used_another_takes_over(kernel):
    query = torch.rand(1, 1, 8, 512, dtype=torch.float64)  # as wide as the VAE's head, and in a type that few take
    expected = torch.nn.functional.scaled_dot_product_attention(query, query, query)
    prefer_attention(kernel)
    assert torch.allclose(torch.nn.functional.scaled_dot_product_attention(query, query, query), expected)
