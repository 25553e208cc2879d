"""Frozen layers: the same values and gradients as PyTorch's own, with less kept for the backward pass."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from lightning_modules.networks.frozen import FrozenConv2d, FrozenGroupNorm, FrozenSiLU, keep_little
from tests.helpers.tiny import build_base


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = build_base(tmp_path_factory.mktemp("base"))
    return AutoencoderKL.from_pretrained(folder, subfolder="vae").requires_grad_(False).eval()


def decode(vae, autocast=False):
    """Return the bytes kept for the backward pass of a decoding, its result and its gradient."""
    latent = torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = {weight.untyped_storage().data_ptr() for weight in vae.parameters()}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # the tensor too, or its address would be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            decoded = vae.decode(latent).sample
        (gradient,) = torch.autograd.grad(decoded.float().square().mean(), latent)
    return sum(size for size, _ in kept.values()), decoded, gradient


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_a_frozen_decoder_gives_the_same_bits_and_keeps_less_than_half(vae, layout, autocast):
    plain = copy.deepcopy(vae).to(memory_format=layout)
    frugal = copy.deepcopy(plain)
    keep_little(frugal)
    expected_bytes, expected, expected_gradient = decode(plain, autocast)
    kept_bytes, decoded, gradient = decode(frugal, autocast)
    assert torch.equal(decoded, expected)
    assert torch.equal(gradient, expected_gradient)
    assert kept_bytes < 0.45 * expected_bytes


def test_checkpointing_of_frozen_blocks_gives_the_same_bits(vae):
    frugal = copy.deepcopy(vae)
    keep_little(frugal)
    frugal.enable_gradient_checkpointing()
    frugal.train()  # diffusers checkpoints in training mode alone
    assert torch.equal(decode(frugal)[2], decode(vae)[2])


def test_what_trains_is_left_alone():
    block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 3, 1))
    block[3].requires_grad_(False)
    keep_little(block)
    assert [type(layer) for layer in block] == [nn.Conv2d, nn.GroupNorm, FrozenSiLU, FrozenConv2d]
    block(torch.rand(1, 3, 5, 5)).sum().backward()
    assert block[0].weight.grad.abs().sum() > 0


def test_a_convolution_keeps_nothing_of_its_input():
    layer = FrozenConv2d(3, 4, 3, stride=2, padding=1, groups=1).requires_grad_(False)
    image = torch.rand(2, 3, 9, 10, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        result = layer(image)
    assert kept == [layer.weight.shape]
    assert torch.autograd.gradcheck(layer.double(), image.detach().double().requires_grad_())
    assert result.shape == (2, 4, 5, 5)


def test_an_activation_without_a_normalisation_before_it_is_the_ordinary_one():
    values = torch.randn(4, requires_grad=True)
    assert torch.equal(FrozenSiLU()(values), nn.SiLU()(values))


def test_gradients_of_normalisation_and_activation_agree_with_finite_differences():
    norm = FrozenGroupNorm(2, 4).requires_grad_(False).double()
    nn.init.normal_(norm.weight)
    block = nn.Sequential(norm, FrozenSiLU())
    assert torch.autograd.gradcheck(block, torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True))


def test_compiled_frozen_layers_have_the_same_gradient(vae):
    frugal = copy.deepcopy(vae)
    keep_little(frugal)
    frugal.decoder.compile(backend="aot_eager")
    torch.testing.assert_close(decode(frugal)[2], decode(vae)[2], rtol=1e-5, atol=1e-9)


def test_a_layer_that_trains_again_gets_its_gradient():
    block = nn.Sequential(nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 3, 1)).requires_grad_(False)
    keep_little(block)
    block.requires_grad_(True)
    block(torch.rand(1, 4, 5, 5, requires_grad=True)).sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in block.parameters())
