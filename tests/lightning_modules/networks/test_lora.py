import sys

import pytest
import torch
from diffusers import UNet2DConditionModel

from geometry.errors import InputError
from lightning_modules import StableDiffusion
from lightning_modules.networks.lora import LoRA
from tests.helpers.tiny import build_base, make_batch


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def make_network(base, noise="zeros", **options):
    return StableDiffusion(str(base), noise, lora=LoRA(**({"rank": 2} | options)))


def trained_names(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def stir(network):
    """Give the adapters, which start as no change, something to say."""
    for parameter in network.unet.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.2)


def test_adapters_start_as_no_change_to_the_prediction(base):
    image = make_batch().image
    with torch.no_grad():
        adapted, plain = make_network(base)(image), StableDiffusion(str(base))(image)
    assert torch.allclose(adapted, plain, atol=2e-5)  # measured: 3.5e-6, the rounding of another memory layout


def test_only_adapters_and_a_widened_first_layer_train(base, tmp_path):
    trained = trained_names(make_network(base))
    first = {"unet.conv_in.weight", "unet.conv_in.bias"}
    assert first < trained
    assert all(".lora_A." in name or ".lora_B." in name for name in trained - first)
    for taken_as_it_is in (make_network(base, "none"), make_network(build_base(tmp_path, in_channels=8))):
        assert trained_names(taken_as_it_is) == trained - first


def test_rank_and_alpha_set_size_and_scale_of_the_adapters(base):
    layer = make_network(base, rank=3, alpha=12).unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q
    assert layer.lora_A["default"].weight.shape[0] == 3
    assert layer.scaling["default"] == 4
    assert make_network(base).unet.mid_block.attentions[0].proj_in.scaling["default"] == 1


def test_targets_are_the_layers_that_are_named(base):
    names = {name.split(".lora_")[0] for name in trained_names(make_network(base, "none", target_modules=["conv1"]))}
    assert names and all(name.endswith(".conv1") for name in names)


def test_merged_weights_predict_what_the_adapters_do_and_load_as_a_stock_unet(base, tmp_path):
    network = make_network(base, target_modules=["to_q", "ff.net.2", "conv1", "proj_in"])
    stir(network)
    parts = network.export_parts()
    parts["unet"].save_pretrained(tmp_path)
    stock, report = UNet2DConditionModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    latent, prompt = torch.randn(2, 8, 8, 8), network.prompt_embedding.expand(2, -1, -1)
    with torch.no_grad():
        expected = network.model_output(latent, network.timestep)
        merged = stock(latent, network.timestep, encoder_hidden_states=prompt).sample
        unadapted = StableDiffusion(str(base)).model_output(latent, network.timestep)
    assert torch.allclose(merged, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(unadapted, expected, rtol=1e-2, atol=1e-2)


def test_exporting_leaves_the_training_network_as_it_was(base):
    network = make_network(base)
    stir(network)
    image, trained = make_batch().image, trained_names(network)
    weights = {name: weight.clone() for name, weight in network.state_dict().items()}
    before = network(image)
    network.export_parts()
    assert trained_names(network) == trained
    assert network.unet.training
    assert weights.keys() == network.state_dict().keys()
    assert all(torch.equal(weight, network.state_dict()[name]) for name, weight in weights.items())
    assert torch.equal(network(image), before)


def test_checkpointing_changes_no_gradient_of_an_adapter(base):
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        network = StableDiffusion(str(base), unet_checkpointing=on, lora=LoRA(rank=2))
        stir(network)
        network(make_batch().image).square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.unet.parameters() if p.requires_grad]))
    assert gradients[0].abs().sum() > 0
    assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6 * gradients[0].abs().max().item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "1 <= rank"),
        ({"alpha": 0}, "alpha >= 1"),
        ({"dropout": 1.0}, "dropout < 1"),
        ({"target_modules": ["to_q", "to_z"]}, "no layer of the UNet2DConditionModel is named to_z"),
        ({"target_modules": ["q"]}, "no layer of the UNet2DConditionModel is named q"),
        ({"target_modules": []}, "no layer of the UNet2DConditionModel is named in target_modules"),
        ({"target_modules": ["norm1"]}, "norm1|GroupNorm|LayerNorm"),
    ],
)
def test_adapters_that_cannot_be_are_refused(base, options, message):
    with pytest.raises(InputError, match=message) as refused:
        make_network(base, **options)
    assert "\n" not in str(refused.value)


def test_without_peft_the_message_says_what_to_install(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r"pip install -e '.\[lora\]'"):
        make_network(base)
