"""A base in 4 bits: the values and gradients of its dequantised weights, a fraction of their memory, merged exactly."""

import sys

import bitsandbytes
import pytest
import torch
from torch import nn

from geometry.errors import InputError
from lightning_modules import PretrainedNetwork
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.lora import LoRA
from lightning_modules.networks.quantization import dequantize, is_quantized, quantize
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    kind = getattr(request, "param", "flux_kontext")
    return str(write_base(tmp_path_factory.mktemp("bases") / kind, kind))


def build(base, quantization="nf4", **options):
    """A network whose adapters, which start as no change, have something to say."""
    torch.manual_seed(0)
    network = PretrainedNetwork(base, "image", lora=LoRA(rank=2), quantization=quantization, **options)
    for name, weight in network.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return network


def layers(network):
    """The quantised layers by their names."""
    return {name: each for name, each in network.named_modules() if type(each) is bitsandbytes.nn.Linear4bit}


def image():
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1


def dequantised(layer):
    return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def test_a_weight_takes_little_more_than_4_bits():
    model = nn.Sequential(nn.Linear(1024, 512))
    quantize([model])
    bits = sum(8 * value.numel() * value.element_size() for value in model.state_dict().values())
    assert bits / (1024 * 512) < 4.2
    assert is_quantized(model)


def test_rows_that_a_block_would_reach_over_keep_their_bits():
    wide, narrow = nn.Linear(128, 48), nn.Linear(48, 128)
    expected = narrow.weight.clone()
    model = nn.Sequential(wide, narrow)
    quantize([model])
    assert is_quantized(model[0])
    assert torch.equal(model[1].weight, expected)
    with pytest.raises(InputError, match="no layer whose inputs are a multiple of 64"):
        quantize([nn.Sequential(narrow)])


@pytest.mark.parametrize("base", sorted(KINDS), indirect=True)
def test_values_and_gradients_are_those_of_the_dequantised_weights(base):
    small, plain = build(base), build(base, quantization=None)
    found = layers(small)
    assert found
    for name, layer in found.items():
        weight = plain.get_submodule(name).weight
        assert 0 < (dequantised(layer) - weight).norm() < 0.15 * weight.norm()
        weight.data.copy_(dequantised(layer))
    results = []
    for network in (small, plain):
        prediction = network(image())
        prediction.square().mean().backward()
        trained = {name: weight.grad for name, weight in network.named_parameters() if weight.requires_grad}
        results.append((prediction.detach(), trained))
    (first, gradients), (second, expected) = results
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected.keys() and all(".lora_" in name for name in gradients)
    for name, gradient in gradients.items():
        assert gradient.any()
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-4 * expected[name].abs().max().item())


def test_merged_weights_predict_what_the_adapters_do_and_load_as_a_stock_model(base, tmp_path):
    network = build(base)
    with torch.no_grad():
        expected = network(image())
        merged = network.export_copy()
        assert not is_quantized(merged)
        assert not [name for name, _ in merged.named_parameters() if "lora" in name]
        torch.testing.assert_close(merged(image()), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(network(image()), expected), "the network itself stays as it was"
    model = network.export_parts()["transformer"]
    model.save_pretrained(tmp_path)
    stock, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    for (name, weight), (_, other) in zip(
        sorted(stock.state_dict().items()), sorted(merged.denoiser.model.state_dict().items()), strict=True
    ):
        assert weight.dtype == torch.float32 and torch.equal(weight, other), name


def test_merging_into_4_bits_would_lose_what_the_adapters_learnt(base):
    network = build(base)
    name, layer = next(iter(layers(network).items()))
    adapted = network.get_submodule(name.removesuffix(".base_layer"))
    exact = dequantised(layer) + adapted.get_delta_weight("default")
    again = nn.Sequential(nn.Linear(layer.in_features, layer.out_features))
    again[0].weight.data.copy_(exact)
    quantize([again])
    dequantize(again)
    assert (again[0].weight - exact).norm() > 0.02 * exact.norm()
    merged = network.export_copy().get_submodule(name.removesuffix(".base_layer")).weight
    torch.testing.assert_close(merged, exact, rtol=1e-5, atol=1e-6)


def test_validation_leaves_the_weights_as_training_computes_with_them(base):
    network = build(base)
    before = {name: layer.weight.data.clone() for name, layer in layers(network).items()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network.eval()(image())
    network.train()
    assert all(torch.equal(layer.weight.data, before[name]) for name, layer in layers(network).items())


def test_the_base_is_read_in_no_more_bits_than_it_is_stored_in(tmp_path, monkeypatch):
    from lightning_modules.networks import pretrained_network

    seen, load = [], pretrained_network.load_weights
    monkeypatch.setattr(
        pretrained_network, "load_weights", lambda *args, **options: seen.append(options) or load(*args, **options)
    )
    folder = write_base(tmp_path / "base", "stable_diffusion_3")
    model = PretrainedNetwork(str(folder), "image").transformer.to(torch.bfloat16)
    model.save_pretrained(folder / "transformer")
    seen.clear()
    network = build(str(folder))
    assert [options["torch_dtype"] for options in seen] == [torch.float32, torch.bfloat16]
    floating = [weight.dtype for weight in network.parameters() if weight.is_floating_point()]
    assert set(floating) == {torch.float32}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "nf4"}, "cannot be trained: quantization: nf4 needs network.lora"),
        ({"quantization": "int4", "lora": LoRA()}, "no quantization 'int4'; choose nf4"),
        ({"quantization": "nf4", "lora": LoRA(), "compile": Compilation()}, "does not go with quantization: nf4"),
    ],
)
def test_what_does_not_go_with_4_bits_is_refused(base, options, message):
    with pytest.raises(InputError, match=message) as refused:
        PretrainedNetwork(base, "image", **options)
    assert "\n" not in str(refused.value)


def test_weights_of_4_bits_are_not_sharded(base):
    with pytest.raises(InputError, match="weights of 4 bits are not sharded over devices"):
        build(base).shard(None)


def test_without_bitsandbytes_the_message_says_what_to_install(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(InputError, match=r"pip install -e '.\[quantized\]'"):
        PretrainedNetwork(base, "image", quantization="nf4", lora=LoRA())
