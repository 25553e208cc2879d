"""The network of the recipes after Marigold V2 computes what its published code does.

Source: huawei-bayerlab/marigold-v2, marigoldv2/experiments/20260316_qwen_depth: network_graph.py (commit 3ea9df1) and
training_relative_log_depth_config.yaml (commit 565136f), transcribed here into formulas over diffusers' own classes.
What differs there, and is left out: latents are drawn where ours are means, all is computed in bfloat16, the prompt is
another, and the decoder's result is clamped.
"""

from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoencoderKLQwenImage, QwenImageEditPipeline, QwenImageTransformer2DModel
from peft import LoraConfig

from lightning_modules import PretrainedNetwork
from lightning_modules.networks.lora import LoRA
from tests.tiny_bases import write_base

pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = Path(__file__).parents[4] / "configs"
RECIPES = ["recipes/marigold_v2_stage_1", "recipes/marigold_v2_stage_2", "depth_qwen_edit", "normals_qwen_edit"]
# target_modules of their config, which names layers of other transformers, too.
THEIR_TARGETS = [
    *("img_in", "txt_in", "to_q", "to_k", "to_v", "to_out.0"),
    *(
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.add_q_proj",
        "attn.to_add_out",
        "norm.linear",
        "a_to_out",
        "b_to_out",
    ),
    *("img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2"),
    *("ff_a.0", "ff_a.2", "ff_b.0", "ff_b.2", "norm_out.linear", "proj_out"),
]
THEIR_TIMESTEP = 499.0


def options_of(recipe):
    return yaml.safe_load((CONFIGS / f"{recipe}.yaml").read_text())["model"]["init_args"]["network"]["init_args"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "base", "qwen_image_edit_plus")


def published(base, image, prompt, timestep):
    """Their clean latent (B,C,h,w) of an image (B,3,H,W) under a prompt (1,L,D), and what is decoded of it."""
    vae = AutoencoderKLQwenImage.from_pretrained(base / "vae")
    transformer = QwenImageTransformer2DModel.from_pretrained(base / "transformer")
    mean, std = (torch.tensor(vae.config[f"latents_{name}"])[None, :, None, None, None] for name in ("mean", "std"))
    latent = (vae.encode(image[:, :, None]).latent_dist.mode() - mean) / std
    batch, channels, _, height, width = latent.shape
    tokens = QwenImageEditPipeline._pack_latents(latent[:, :, 0], batch, channels, height, width)
    says = transformer(
        tokens,
        timestep=torch.full((batch,), timestep) / 1000,
        encoder_hidden_states=prompt.expand(batch, -1, -1),
        encoder_hidden_states_mask=torch.ones(batch, prompt.shape[1], dtype=torch.bool),
        img_shapes=[[(1, height // 2, width // 2)]] * batch,
        guidance=None,
        return_dict=False,
    )[0]
    factor = 2 ** len(vae.config.temperal_downsample)
    clean = latent - QwenImageEditPipeline._unpack_latents(says, height * factor, width * factor, factor)
    return clean[:, :, 0], vae.decode(clean * std + mean).sample[:, :, 0]


@pytest.mark.parametrize("timestep", [499.0, 500.0])
def test_clean_latent_and_image_are_theirs(base, timestep):
    network = PretrainedNetwork(str(base), "residual", timestep=timestep).eval()
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        latent, decoded = published(base, image, network.prompt_embedding, timestep)
        found = network.predict_latent(image)
        torch.testing.assert_close(found, latent, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(network.decode(found).clamp(-1, 1), decoded, rtol=1e-4, atol=1e-5)
        assert (found - network.encode(image)).abs().max() > 0.1, "the transformer said something"
        other, _ = published(base, image, network.prompt_embedding, 700.0)
    assert (other - latent).abs().max() > 1e-4, "the timestep told"


def test_their_timestep_in_bfloat16_is_that_of_the_recipes():
    assert float(torch.full((1,), THEIR_TIMESTEP, dtype=torch.bfloat16) / 1000) == 0.5
    for recipe in RECIPES:
        assert options_of(recipe)["timestep"] == 500
        assert options_of(recipe)["input_mode"] == "residual"


@pytest.mark.parametrize("recipe", RECIPES)
def test_adapters_lie_where_theirs_do_except_where_they_have_no_influence(base, recipe):
    options = options_of(recipe)["lora"]
    assert options["rank"] == 128 and "alpha" not in options  # theirs is 128, too
    ours = PretrainedNetwork(str(base), "residual", lora=LoRA(rank=2, target_modules=options["target_modules"]))
    theirs = QwenImageTransformer2DModel.from_pretrained(base / "transformer")
    theirs.add_adapter(LoraConfig(r=2, target_modules=THEIR_TARGETS))
    found, expected = (
        {name.split(".lora_")[0] for name, _ in model.named_parameters() if ".lora_" in name}
        for model in (ours.transformer, theirs)
    )
    idle = ours.denoiser.idle_layers(theirs)
    assert found < expected
    assert all(any(f"{name}.".startswith(f"{layer}.") for layer in idle) for name in expected - found)
