"""Low-rank adapters wherever the field puts them: attention, MLP, last projection, the layer that sees the latents."""

import pytest
import torch

from geometry.errors import InputError
from lightning_modules import PretrainedNetwork, StableDiffusion
from lightning_modules.networks.lora import LoRA
from tests.helpers.tiny import build_base
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")

UNET = "stable_diffusion"
RANK = 128  # the largest that recipes have
UNET_TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("ff.net.0.proj", "ff.net.2"),
    "proj_out",
    "conv_out",
    "conv_in",
]
EDITOR_ATTENTION = [
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
]
FLUX_TARGETS = [
    *EDITOR_ATTENTION,
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp"),
    *("single_transformer_blocks.0.proj_out", "proj_out", "x_embedder"),
]
SD3_TARGETS = [
    *EDITOR_ATTENTION,
    *("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_out", "pos_embed.proj"),
]
QWEN_TARGETS = [
    *EDITOR_ATTENTION,
    *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2", "proj_out", "img_in", "txt_in"),
]
# Attention, MLP, last projection and first layer, as each family calls them.
TARGETS = {
    UNET: UNET_TARGETS,
    "stable_diffusion_xl": UNET_TARGETS,
    "stable_diffusion_3": SD3_TARGETS,
    "stable_diffusion_3_5": [*SD3_TARGETS, "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0"],
    "flux": FLUX_TARGETS,
    "flux_kontext": FLUX_TARGETS,
    "flux_2_klein": [
        *EDITOR_ATTENTION,
        *("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
        *("attn.to_qkv_mlp_proj", "single_transformer_blocks.0.attn.to_out", "proj_out", "x_embedder"),
    ],
    "qwen_image": QWEN_TARGETS,
    "qwen_image_edit_plus": QWEN_TARGETS,
    "z_image": [
        *("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
        *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        *("all_final_layer.2-1.linear", "all_x_embedder.2-1"),
    ],
}


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / request.param
    if request.param == UNET:
        build_base(folder)
        return folder
    return write_base(folder, request.param)


def build(base, is_concatenated, targets):
    """A network with adapters that are not what they begin with, which is no change."""
    lora = LoRA(rank=RANK, target_modules=targets)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if base.name == UNET:
            network = StableDiffusion(str(base), "zeros" if is_concatenated else "none", lora=lora)
        else:
            network = PretrainedNetwork(str(base), "concatenated" if is_concatenated else "image", lora=lora)
        for name, weight in network.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(weight, std=0.02)
    return network


def image(network):
    sides = 3 * network.size_multiple, 4 * network.size_multiple
    return torch.rand(1, 3, *sides, generator=torch.Generator().manual_seed(1)) * 2 - 1


def adapted_layers(network):
    return {name.split(".lora_")[0] for name, _ in network.named_parameters() if ".lora_" in name}


def test_every_family_is_tried():
    assert TARGETS.keys() == {UNET, *KINDS}


@pytest.mark.parametrize("is_concatenated", [False, True], ids=["image", "concatenated"])
@pytest.mark.parametrize("base", TARGETS, indirect=True)
def test_adapters_of_the_largest_rank_train_in_every_place_and_are_merged_as_they_predict(base, is_concatenated):
    network = build(base, is_concatenated, TARGETS[base.name])
    denoiser = network.denoiser
    layers = {name.removeprefix(f"{denoiser.name}.") for name in adapted_layers(network)}
    assert denoiser.first_layer in layers
    for target in TARGETS[base.name]:
        assert any(f".{layer}".endswith(f".{target}") for layer in layers), target

    prediction = network(image(network))
    prediction.square().mean().backward()
    trained = {name: weight.grad for name, weight in network.named_parameters() if weight.requires_grad}
    assert not [name for name, grad in trained.items() if grad is None or not grad.isfinite().all() or not grad.any()]
    adapters = {name for name, _ in network.named_parameters() if ".lora_" in name}
    first = f"{denoiser.name}.{denoiser.first_layer}.base_layer"
    widened = {f"{first}.weight", f"{first}.bias"} & {*network.state_dict()} if is_concatenated else set()
    assert trained.keys() == adapters | widened

    with torch.no_grad():
        merged = network.export_copy()
        assert not [name for name, _ in merged.named_parameters() if "lora" in name or "base_layer" in name]
        torch.testing.assert_close(merged(image(network)), prediction, rtol=1e-4, atol=2e-5)
        for name, weight in network.named_parameters():
            if ".lora_B." in name:
                weight.zero_()
        assert (network(image(network)) - prediction).abs().max() > 1e-2, "the adapters said something"


@pytest.mark.parametrize("base", ["flux", "z_image", UNET], indirect=True)
@pytest.mark.parametrize("wanted", ["img_in", "to_qq", "proj_outt"])
def test_a_target_that_a_family_has_not_got_is_answered_by_the_nearest_names(base, wanted):
    with pytest.raises(InputError, match=f"is named {wanted}") as refused:
        build(base, False, [wanted])
    message = str(refused.value)
    assert "\n" not in message
    first, last = {
        "flux": ("x_embedder", "proj_out"),
        "z_image": ("all_x_embedder.2-1", "to_out.0"),
        UNET: ("conv_in", "proj_out"),
    }[base.name]
    assert {"img_in": first, "to_qq": "to_q", "proj_outt": last}[wanted] in message.partition("is named")[2]
