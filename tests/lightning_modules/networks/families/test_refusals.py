"""An incomplete or unsupported folder of any family is refused in one line, before data are read."""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import train
from geometry.errors import InputError
from lightning_modules import PretrainedNetwork
from tests.helpers.tiny import build_base
from tests.lightning_modules.networks.families.test_life_of_a_run import without_encoders
from tests.tiny_bases import KINDS, write_base

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Return a base of a kind; a file stands for its encoders, or they are there."""
    folder = tmp_path_factory.mktemp("bases")

    def base(kind, with_encoders):
        path = folder / kind / ("whole" if with_encoders else "stored")
        if not path.exists():
            write_base(path, kind)
            if not with_encoders:
                without_encoders(path)
        return path

    return base


def denoiser(base):
    return base / ("unet" if (base / "unet").is_dir() else "transformer")


def edit(file, **changes):
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def weights_file(part):
    (file,) = part.glob("*.safetensors")
    return file


def without_tensor(part):
    tensors = load_file(weights_file(part))
    del tensors[sorted(tensors)[-1]]
    save_file(tensors, weights_file(part), {"format": "pt"})


def twice_as_wide(base):
    """Let the denoiser's config describe a wider model than its weights are of."""
    config = json.loads((denoiser(base) / "config.json").read_text())
    names = [name for name in ("n_heads", "n_kv_heads", "dim", "block_out_channels") if name in config]
    for name in names or ["num_attention_heads"]:
        value = config[name]
        config[name] = [2 * each for each in value] if isinstance(value, list) else 2 * value
    edit(denoiser(base) / "config.json", **config)


def another_vae(base):
    """Put a VAE of twice the channels in place of the base's, whole in itself."""
    config = json.loads((base / "vae/config.json").read_text())
    kind = getattr(diffusers, config["_class_name"])
    for name in ("z_dim", "latent_channels"):
        if name in config:
            config[name] *= 2
    for name in ("latents_mean", "latents_std"):
        if config.get(name):
            config[name] *= 2
    shutil.rmtree(base / "vae")
    kind.from_config(config).save_pretrained(base / "vae")


def of_another_family(base):
    given = json.loads((denoiser(base) / "config.json").read_text())["_class_name"]
    other = "FluxTransformer2DModel" if given != "FluxTransformer2DModel" else "SD3Transformer2DModel"
    edit(denoiser(base) / "config.json", _class_name=other)


def named_of_another_family(base):
    index = json.loads((base / "model_index.json").read_text())
    index[denoiser(base).name] = ["diffusers", "PixArtTransformer2DModel"]
    edit(base / "model_index.json", **index)


def broken_weights(base):
    file = weights_file(denoiser(base))
    file.write_bytes(file.read_bytes()[:-100])


def other_prompts(base):
    config = json.loads((denoiser(base) / "config.json").read_text())
    (name,) = {"joint_attention_dim", "cross_attention_dim", "cap_feat_dim"} & config.keys()
    edit(denoiser(base) / "config.json", **{name: config[name] + 4})


def not_finite(base):
    tensors = load_file(weights_file(denoiser(base)))
    tensors[sorted(tensors)[0]].fill_(torch.nan)
    save_file(tensors, weights_file(denoiser(base)), {"format": "pt"})


# What is done to a folder, whether it keeps its encoders, and what the line says.
DAMAGES = {
    "no denoiser": (
        lambda base: shutil.rmtree(denoiser(base)),
        False,
        "has no {part}/config.json; a {pipeline} consists",
    ),
    "no VAE": (lambda base: shutil.rmtree(base / "vae"), False, "has no vae/config.json; a {pipeline} consists"),
    "no scheduler": (lambda base: shutil.rmtree(base / "scheduler"), False, "has no scheduler/scheduler_config.json"),
    "no text encoder": (lambda base: shutil.rmtree(base / "text_encoder"), True, "has no text_encoder/config.json"),
    "no tokenizer": (lambda base: shutil.rmtree(base / "tokenizer"), True, "has no tokenizer/tokenizer_config.json"),
    "no tokenizer's words": (
        lambda base: [file.unlink() for file in (base / "tokenizer").glob("*") if file.name != "tokenizer_config.json"],
        True,
        "has no tokenizer/tokenizer.json",
    ),
    "denoiser is not named": (
        lambda base: edit(base / "model_index.json", **{denoiser(base).name: None}),
        False,
        "model_index.json names no {part}, which a {pipeline} has",
    ),
    "no weights": (
        lambda base: weights_file(denoiser(base)).unlink(),
        False,
        "there is no {part}/diffusion_pytorch_model",
    ),
    "no weights of the encoder": (
        lambda base: weights_file(base / "text_encoder").unlink(),
        True,
        "there is no text_encoder/model.safetensors",
    ),
    "a tensor is missing": (
        lambda base: without_tensor(denoiser(base)),
        False,
        "does not fit {part}/config.json: the weights lack ",
    ),
    "a tensor of the VAE is missing": (
        lambda base: without_tensor(base / "vae"),
        False,
        "does not fit vae/config.json: the weights lack ",
    ),
    "other widths": (twice_as_wide, False, "does not fit {part}/config.json: the weights have .* as .* in place of "),
    "other widths of the prompt": (other_prompts, True, "but the denoiser needs a last axis of"),
    "another VAE": (another_vae, False, "out_channels: .* but the VAE of this base decodes latents that would need"),
    "another family's denoiser": (of_another_family, False, "{part}/config.json names the class '.*'. Needed: "),
    "another family's denoiser in the index": (
        named_of_another_family,
        False,
        "names the class {part}: 'PixArtTransformer2DModel'. Needed: ",
    ),
    "another family's VAE": (
        lambda base: edit(base / "vae/config.json", _class_name="AutoencoderKLWan"),
        False,
        "vae/config.json names the class 'AutoencoderKLWan'. Needed: ",
    ),
    "another scheduler": (
        lambda base: edit(base / "scheduler/scheduler_config.json", _class_name="DEISMultistepScheduler"),
        False,
        "names the class 'DEISMultistepScheduler'. Needed: ",
    ),
    "an unknown pipeline": (
        lambda base: edit(base / "model_index.json", _class_name="PixArtSigmaPipeline"),
        False,
        "is a PixArtSigmaPipeline, of which no family is known here. Known: .*{pipeline}",
    ),
    "a config that describes no model": (
        lambda base: edit(denoiser(base) / "config.json", **{layers(base): "two"}),
        True,
        "{part}/config.json describes no ",
    ),
    "a config that is no JSON": (lambda base: (denoiser(base) / "config.json").write_text("{"), False, "is no JSON"),
    "a file that is cut off": (broken_weights, False, "is damaged or no safetensors file"),
    "weights that are not finite": (not_finite, False, "{part} has weights that are not finite"),
}


def layers(base):
    config = json.loads((denoiser(base) / "config.json").read_text())
    return next(name for name in ("num_layers", "n_layers", "layers_per_block") if name in config)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_used_is_said_in_one_line(kind, damage, bases, tmp_path):
    change, with_encoders, expected = DAMAGES[damage]
    base = Path(shutil.copytree(bases(kind, with_encoders), tmp_path / "base"))
    pipeline, part = json.loads((base / "model_index.json").read_text())["_class_name"], denoiser(base).name
    change(base)
    with pytest.raises(InputError, match=expected.format(part=part, pipeline=pipeline)) as refused:
        PretrainedNetwork(str(base), "image")
    message = str(refused.value)
    assert "\n" not in message and str(base) in message and "low_cpu_mem_usage" not in message


def test_a_base_of_the_network_that_has_its_own_class_is_told_so(tmp_path):
    base = build_base(tmp_path / "base")
    (base / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(InputError, match="Networks with bases of their own: StableDiffusion") as refused:
        PretrainedNetwork(str(base))
    assert "\n" not in str(refused.value)


def test_the_line_comes_before_data_are_read(bases, tmp_path, capsys):
    base = Path(shutil.copytree(bases("flux_kontext", False), tmp_path / "base"))
    shutil.rmtree(base / "vae")
    words = ["--model.class_path=SingleStepEstimator", "--model.init_args.task=lightning_modules.Depth"]
    words += ["--model.init_args.network.class_path=lightning_modules.PretrainedNetwork"]
    words += [f"--model.init_args.network.init_args.base={base}", "--data.class_path=datamodules.GeometryDataModule"]
    words += [f"--data.init_args.datasets+={{path: {tmp_path / 'no-data'}}}", "--name=x"]
    with pytest.raises(SystemExit) as ended:
        train.main(["fit", *words])
    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "has no vae/config.json" in last and "no-data" not in last
