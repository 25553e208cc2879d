"""The toys of ``tests/tiny_bases.py`` have the hub's layout, and weights are read however the hub has cut them.

The published files are those of ``lightning_modules/planning/published``. Of them, ``model_index.json`` was compared
with the hub's for QwenImageEditPlusPipeline, FLUX.2-klein-base-4B, FLUX.2-klein-9B and FLUX.1-schnell; the names of
files with its listings of Qwen-Image-Edit-2509 and Z-Image; the layers of FLUX.2 with diffusers'
scripts/convert_flux2_to_diffusers.py (commit 207bae7).
"""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from geometry.errors import InputError
from lightning_modules import PretrainedNetwork, StableDiffusion
from lightning_modules.planning.published_bases import published
from tests.helpers.tiny import build_base
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")

HUB = {
    "stable_diffusion_3": "stabilityai/stable-diffusion-3.5-medium",  # which has the parts of 3
    "stable_diffusion_3_5": "stabilityai/stable-diffusion-3.5-medium",
    "flux": "black-forest-labs/FLUX.1-dev",
    "flux_kontext": "black-forest-labs/FLUX.1-Kontext-dev",
    "qwen_image": "Qwen/Qwen-Image",
    "qwen_image_edit_plus": "Qwen/Qwen-Image-Edit-2509",
    "stable_diffusion_xl": "stabilityai/stable-diffusion-xl-base-1.0",
    "z_image": "Tongyi-MAI/Z-Image",
    "flux_2_klein": "black-forest-labs/FLUX.2-klein-base-4B",
}
FIRST = "stable_diffusion"


@pytest.fixture(scope="module")
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases") / request.param
    return build_base(folder) if request.param == FIRST else write_base(folder, request.param)


def network_of(folder, kind):
    return StableDiffusion(str(folder)) if kind == FIRST else PretrainedNetwork(str(folder), "image")


def read(content):
    return json.loads(content) if isinstance(content, str) else content


def test_every_kind_is_compared():
    assert HUB.keys() == KINDS.keys()


@pytest.mark.parametrize("base", KINDS, indirect=True)
def test_a_toy_has_the_parts_the_files_and_the_settings_of_the_hub(base):
    files = json.loads(published()[HUB[base.name]].read_text())["files"]
    index, hubs = json.loads((base / "model_index.json").read_text()), read(files["model_index.json"])
    parts, expected = (
        {name: entry for name, entry in each.items() if isinstance(entry, list) and entry[1] is not None}
        for each in (index, hubs)
    )
    assert index["_class_name"] == hubs["_class_name"]
    assert parts == expected
    for name, content in files.items():
        assert (base / name).is_file(), name
        if not name.endswith("config.json") or "tokenizer" in name:
            continue
        toy, real = json.loads((base / name).read_text()), read(content)
        assert toy.get("_class_name") == real.get("_class_name")
        lacking = [key for key in real if key not in toy and not key.startswith("_")]
        assert not lacking, (name, lacking)
        if name.startswith("scheduler"):
            assert {key: toy[key] for key in real if key != "_diffusers_version"} == {
                key: value for key, value in real.items() if key != "_diffusers_version"
            }
        for key, value in real.items():  # sizes may differ, switches may not
            if isinstance(value, bool) and not name.startswith("text_encoder"):
                assert toy[key] == value, (name, key)


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("base", [FIRST, *KINDS], indirect=True)
def test_weights_in_shards_or_in_a_variant_are_those_of_one_file(base, variant, tmp_path):
    kind = base.name
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    dtype = torch.float16 if variant else torch.float32
    num_files = {}
    for part in [path for path in sorted(folder.iterdir()) if list(path.glob("*.safetensors"))]:
        (file,) = part.glob("*.safetensors")
        given = json.loads((part / "config.json").read_text())
        name = given.get("_class_name") or given["architectures"][0]
        model = getattr(diffusers if "_class_name" in given else transformers, name).from_pretrained(part)
        file.unlink()
        model.to(dtype).save_pretrained(
            part, max_shard_size=file_limit(model), **({"variant": variant} if variant else {})
        )
        num_files[part.name] = len(list(part.glob("*.safetensors")))
    assert num_files["unet" if "unet" in num_files else "transformer"] > 1, "cut into shards"
    plain, cut = network_of(base, kind), network_of(folder, kind)
    expected, found = plain.state_dict(), cut.state_dict()
    assert expected.keys() == found.keys()
    for name, weight in expected.items():
        if weight.is_floating_point():
            torch.testing.assert_close(found[name], weight.to(dtype).float(), rtol=0, atol=0, msg=name)
            assert found[name].dtype == torch.float32
    for name, value in plain.denoiser.conditioning.items():  # which the encoders said
        torch.testing.assert_close(cut.denoiser.conditioning[name], value, rtol=0, atol=1e-2 if variant else 0)


def file_limit(model):
    """A third of a model's bytes, but no less than its largest tensor."""
    sizes = [weight.numel() * weight.element_size() for weight in model.state_dict().values()]
    return max(sum(sizes) // 3, max(sizes), 1)


@pytest.mark.parametrize("base", ["flux_2_klein"], indirect=True)
def test_a_counter_that_conversions_leave_out_is_not_asked_for(base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["bn.num_batches_tracked"]
    save_file(weights, file, {"format": "pt"})
    found, expected = (PretrainedNetwork(str(each), "image").eval() for each in (folder, base))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        assert torch.equal(found(image), expected(image))
    assert not [name for name, value in found.state_dict().items() if value.is_meta]


@pytest.mark.parametrize("base", [*KINDS], indirect=True)
def test_a_shard_that_is_missing_is_named(base, tmp_path):
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    part = folder / ("unet" if (folder / "unet").is_dir() else "transformer")
    kind = getattr(diffusers, json.loads((part / "config.json").read_text())["_class_name"])
    model = kind.from_pretrained(part)
    (part / "diffusion_pytorch_model.safetensors").unlink()
    model.save_pretrained(part, max_shard_size=file_limit(model))
    shard = sorted(part.glob("*-00002-of-*.safetensors"))[0]
    assert load_file(shard)
    shard.unlink()
    with pytest.raises(InputError, match=f"it has no {part.name}/{shard.name}") as refused:
        PretrainedNetwork(str(folder), "image")
    assert "\n" not in str(refused.value)
