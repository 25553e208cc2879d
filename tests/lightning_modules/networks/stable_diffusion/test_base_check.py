"""Bases that cannot be used are refused in one line that names the file; bases of unusual make that can be are read."""

import json
import os
import re
import shutil
import struct

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from geometry.errors import InputError
from lightning_modules import StableDiffusion
from tests.helpers.tiny import build_base, build_text_encoder, make_batch

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
VAE_FILE = "vae/diffusion_pytorch_model.safetensors"
TEXT_FILE = "text_encoder/model.safetensors"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"), in_channels=8)


@pytest.fixture
def own(base, tmp_path):
    return shutil.copytree(base, tmp_path / "own")


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def remake(folder, kind, part, **changes):
    """Write a part anew, with weights that fit the changed config."""
    config = kind.load_config(folder, subfolder=part) | changes
    kind.from_config(config).save_pretrained(folder / part)


def refusal(folder, **options):
    with pytest.raises(InputError) as refused:
        StableDiffusion(str(folder), **options)
    message = str(refused.value)
    assert "\n" not in message and str(folder) in message
    return message


def with_tensors(file, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


class TestInputsThatNobodyGives:
    @pytest.mark.parametrize(
        ("setting", "changes"),
        [
            ("class_embed_type", {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 10}),
            ("class_embed_type", {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 4}),
            ("class_embed_type", {"class_embed_type": "timestep"}),
            ("num_class_embeds", {"num_class_embeds": 3}),
            (
                "addition_embed_type",
                {
                    "addition_embed_type": "text_time",
                    "addition_time_embed_dim": 8,
                    "projection_class_embeddings_input_dim": 64,
                },
            ),
            ("addition_embed_type", {"addition_embed_type": "text", "addition_embed_type_num_heads": 2}),
            ("encoder_hid_dim", {"encoder_hid_dim": 16}),
            ("time_cond_proj_dim", {"time_cond_proj_dim": 8}),
            ("dual_cross_attention", {"dual_cross_attention": True}),
        ],
    )
    def test_a_unet_that_wants_more_than_a_prompt_is_refused_by_the_name_of_its_setting(self, own, setting, changes):
        remake(own, UNet2DConditionModel, "unet", **changes)
        message = refusal(own)
        assert "unet/config.json" in message and setting in message and "Needed:" in message

    def test_prompts_of_another_width_are_refused(self, own):
        build_text_encoder(width=24).save_pretrained(own / "text_encoder")
        message = refusal(own)
        assert "cross_attention_dim: 16" in message and "hidden_size: 24" in message

    def test_other_output_channels_are_refused(self, own):
        remake(own, UNet2DConditionModel, "unet", out_channels=8)  # a learned variance
        assert "unet/config.json has out_channels: 8" in refusal(own)

    def test_a_vae_of_other_latents_or_images_is_refused(self, own):
        remake(own, AutoencoderKL, "vae", latent_channels=8)
        assert "latents have 8 channels" in refusal(own)
        remake(own, AutoencoderKL, "vae", latent_channels=4, in_channels=4, out_channels=4)
        assert "vae/config.json has in_channels: 4" in refusal(own)


class TestSettings:
    @pytest.mark.parametrize(
        ("file", "changes", "named"),
        [
            ("vae", {"scaling_factor": 0}, "scaling_factor: 0"),
            ("vae", {"scaling_factor": None}, "scaling_factor: None"),
            ("vae", {"shift_factor": "0.1"}, "shift_factor: '0.1'"),
            ("vae", {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 3}, "latents_std"),
            ("vae", {"latents_mean": [0.0] * 4}, "latents_std"),
            ("vae", {"_class_name": "AutoencoderTiny"}, "AutoencoderTiny"),
            ("vae", {"latent_channels": "four"}, "latent_channels: 'four'"),
            ("vae", {"block_out_channels": 3}, "cannot read vae"),
            ("unet", {"_class_name": "FluxTransformer2DModel"}, "FluxTransformer2DModel"),
            ("unet", {"in_channels": True}, "in_channels: True"),
            ("unet", {"layers_per_block": None}, "cannot read unet"),
            ("unet", {"down_block_types": ["NoBlock"]}, "cannot read unet"),
            ("unet", {"attention_type": "gated"}, "attention_type: 'gated'"),
            ("unet", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
            ("text_encoder", {"architectures": ["T5EncoderModel"], "model_type": "t5"}, "T5EncoderModel"),
            ("text_encoder", {"architectures": None, "model_type": "xlm-roberta"}, "xlm-roberta"),
            ("text_encoder", {"architectures": 7}, "names the class 7"),
            ("text_encoder", {"num_attention_heads": 3}, "cannot read text_encoder"),
        ],
    )
    def test_a_config_that_cannot_be_is_refused_by_file_and_value(self, own, file, changes, named):
        edit(own / file / "config.json", **changes)
        message = refusal(own)
        assert named in message and file in message

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"tokenizer_class": "T5Tokenizer"}, "T5Tokenizer"),
            ({"model_max_length": 10**30}, "model_max_length: 1000"),
            ({"model_max_length": None}, "model_max_length: None"),
        ],
    )
    def test_a_tokenizer_of_another_kind_is_refused(self, own, changes, named):
        edit(own / "tokenizer/tokenizer_config.json", **changes)
        assert named in refusal(own)

    def test_a_tokenizer_of_another_text_encoder_is_refused(self, own):
        text = own / "tokenizer/tokenizer.json"
        text.write_text(re.sub(r'("id"|"<\|endoftext\|>"): ?1\b', r"\1: 7", text.read_text()).replace("[1]", "[7]"))
        assert "cannot read tokenizer" in (message := refusal(own)) or "words that text_encoder lacks" in message

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "no diffusion schedule"),
            ({"_class_name": "LCMScheduler"}, "LCMScheduler"),
            ({"_class_name": "TCDScheduler"}, "TCDScheduler"),
            ({"_class_name": ["DDIMScheduler"]}, "no diffusion schedule"),
            ({"_class_name": "EDMEulerScheduler"}, "no diffusion schedule"),
            ({"prediction_type": "flow_prediction"}, "flow_prediction"),
            ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas"),
            ({"num_train_timesteps": 10**12}, "num_train_timesteps"),
            ({"num_train_timesteps": "many"}, "num_train_timesteps: 'many'"),
            ({"beta_end": 2.0}, "betas that are not between 0 and 1"),
            ({"beta_end": None}, "cannot read scheduler"),
            ({"trained_betas": ["a"]}, "cannot read scheduler"),
        ],
    )
    def test_a_schedule_that_is_no_diffusion_is_refused(self, own, changes, named):
        edit(own / "scheduler/scheduler_config.json", **changes)
        assert named in refusal(own)

    @pytest.mark.parametrize(
        ("part", "changes"),
        [
            ("vae", {"layers_per_block": 2**63}),
            ("unet", {"layers_per_block": [1, 10**6]}),
            ("unet", {"block_out_channels": [8, 10**40]}),
            ("text_encoder", {"num_hidden_layers": 10**9}),
        ],
    )
    def test_a_network_without_end_is_refused_before_anybody_builds_it(self, own, part, changes):
        edit(own / part / "config.json", **changes)
        message = refusal(own)
        assert next(iter(changes)) in message and "at most" in message

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"_class_name": "MarigoldNormalsPipeline", "use_full_z_range": False}, "use_full_z_range"),
            ({"_class_name": "StableDiffusionInstructPix2PixPipeline"}, "noisy latent first"),
            ({"text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}, "text_encoder_2"),
            ({"image_encoder": ["transformers", "CLIPVisionModelWithProjection"]}, "image_encoder"),
            ({"unet": ["diffusers", "SD3Transformer2DModel"]}, "SD3Transformer2DModel"),
            ({"vae": ["diffusers", "VQModel"]}, "VQModel"),
        ],
    )
    def test_what_the_whole_model_says_counts(self, own, changes, named):
        (own / "model_index.json").write_text(json.dumps({"safety_checker": [None, None], **changes}))
        message = refusal(own)
        assert named in message and "model_index.json" in message


class TestWeights:
    @pytest.mark.parametrize("file", [UNET_FILE, VAE_FILE, TEXT_FILE])
    @pytest.mark.parametrize("kind", ["lacks", "more", "shape", "nan", "infinite", "int8"])
    def test_weights_that_are_not_the_configs_are_refused_by_part_and_tensor(self, own, file, kind):
        names = [name for name in load_file(own / file) if name.endswith("weight")]
        name = names[len(names) // 2]

        def spoil(weights):
            if kind == "lacks":
                del weights[name]
            elif kind == "more":
                weights["adapter.weight"] = torch.zeros(3)
            elif kind == "shape":
                weights[name] = torch.cat([weights[name], weights[name]])
            elif kind == "int8":
                weights[name] = weights[name].to(torch.int8)
            else:
                weights[name].view(-1)[-1] = {"nan": torch.nan, "infinite": torch.inf}[kind]

        with_tensors(own / file, spoil)
        message = refusal(own)
        assert file.split("/")[0] in message
        assert {"more": "adapter.weight", "nan": "not finite", "infinite": "not finite", "int8": "I8"}.get(
            kind, name
        ) in message

    def test_a_refused_base_draws_no_random_numbers_in_place_of_weights(self, own):
        with_tensors(own / TEXT_FILE, lambda weights: weights.pop(next(n for n in weights if "token_embedding" in n)))
        assert "lack" in refusal(own) and "token_embedding" in refusal(own)

    def test_old_text_encoders_with_positions_and_a_projection_are_read(self, own, base):
        def age(weights):
            prefix = next(name for name in weights if "position_embedding" in name).rsplit("position_embedding")[0]
            weights[f"{prefix}position_ids"] = torch.arange(8)[None]
            weights["text_projection.weight"] = torch.zeros(16, 16)

        with_tensors(own / TEXT_FILE, age)
        found, expected = (StableDiffusion(str(folder)).prompt_embedding for folder in (own, base))
        assert torch.equal(found, expected)

    def test_names_of_older_libraries_are_read_as_those_of_today(self, own, base):
        names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

        def as_in_2022(weights):
            for name in [name for name in weights if ".attentions." in name]:
                old = name
                for today, then in names.items():
                    old = old.replace(today, then)
                weights[old] = weights.pop(name)

        def with_a_prefix(weights):
            for name in list(weights):
                weights[f"text_model.{name}"] = weights.pop(name)

        with_tensors(own / VAE_FILE, as_in_2022)
        with_tensors(own / TEXT_FILE, with_a_prefix)
        found, expected = (StableDiffusion(str(folder)) for folder in (own, base))
        assert torch.equal(found.prompt_embedding, expected.prompt_embedding)
        for name, weight in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], weight), name

    @pytest.mark.parametrize("file", [UNET_FILE, VAE_FILE, TEXT_FILE])
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda file: file.write_bytes(b""),
            lambda file: file.write_bytes(b"\x00" * 5),
            lambda file: file.write_bytes(file.read_bytes()[:-4]),
            lambda file: file.write_bytes(file.read_bytes()[:100]),
            lambda file: file.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
            lambda file: file.write_bytes(struct.pack("<Q", 2) + b"{}"),
            lambda file: file.write_bytes(struct.pack("<Q", 4) + b"null"),
            lambda file: file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
            lambda file: (file.unlink(), file.mkdir()),
            lambda file: (file.unlink(), file.symlink_to("nowhere")),
            lambda file: (file.unlink(), file.symlink_to(file.name)),
            lambda file: (file.unlink(), os.mkfifo(file)),
        ],
        ids=[
            "empty",
            "short",
            "cut",
            "header cut",
            "absurd",
            "no tensors",
            "null",
            "lfs",
            "dir",
            "link",
            "loop",
            "pipe",
        ],
    )
    def test_a_file_that_is_none_is_refused_by_name(self, own, file, spoil):
        spoil(own / file)
        assert file in refusal(own)

    @pytest.mark.parametrize("ending", [".bin", ".ckpt"])
    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
    def test_pickles_alone_are_refused(self, own, part, ending):
        (file,) = (own / part).glob("*.safetensors")
        file.rename(file.with_suffix(ending))
        assert "pickled weights" in (message := refusal(own)) and message.startswith(f"{part} of")

    def test_two_strange_variants_are_not_guessed_between(self, own):
        file = own / UNET_FILE
        for variant in ("ema", "non_ema"):
            shutil.copy(file, file.with_suffix(f".{variant}.safetensors"))
        file.unlink()
        assert "ema, non_ema" in refusal(own)


class TestConfigFiles:
    FILES = (
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    )

    @pytest.mark.parametrize("file", [*FILES, "model_index.json"])
    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
    def test_broken_json_is_refused_by_the_name_of_the_file(self, own, file, content):
        (own / file).write_bytes(content)
        assert file in refusal(own)

    @pytest.mark.parametrize("file", [*FILES, "tokenizer/tokenizer.json"])
    def test_a_folder_or_a_dead_link_in_its_place_is_called_so(self, own, file):
        (own / file).unlink()
        (own / file).symlink_to("nowhere")
        assert f"a link to nothing in place of the file {file}" in refusal(own)
        (own / file).unlink()
        (own / file).mkdir()
        assert f"a folder in place of the file {file}" in refusal(own)

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": "1.0", "model": {"type": "BPE"}}'])
    def test_a_broken_vocabulary_is_refused(self, own, content):
        (own / "tokenizer/tokenizer.json").write_text(content)
        assert "tokenizer" in refusal(own)

    def test_links_to_good_files_are_followed(self, own, base):
        for file in (UNET_FILE, "unet/config.json"):
            (own / file).unlink()
            (own / file).symlink_to(base / file)
        StableDiffusion(str(own))


class TestVariants:
    @pytest.mark.parametrize("variant", ["fp16", "bf16", "ema"])
    @pytest.mark.parametrize("is_sharded", [False, True])
    def test_weights_in_a_variant_alone_are_read(self, own, base, variant, is_sharded):
        kinds = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
        for part, kind in kinds.items():
            model = kind.from_pretrained(base, subfolder=part)
            shutil.rmtree(own / part)
            size = {"max_shard_size": "3KB"} if is_sharded else {}
            model.save_pretrained(own / part, variant=variant, **size)
            num_files = len(list((own / part).glob("*.safetensors")))
            assert num_files > 1 if is_sharded else num_files == 1
        found, expected = (StableDiffusion(str(folder)) for folder in (own, base))
        for name, weight in expected.state_dict().items():
            assert torch.equal(found.state_dict()[name], weight), name
        assert torch.equal(found.prompt_embedding, expected.prompt_embedding)

    def test_plain_weights_go_before_a_variant(self, own, base):
        file = own / UNET_FILE
        save_file({name: w.half() for name, w in load_file(file).items()}, file.with_suffix(".fp16.safetensors"))
        with_tensors(file, lambda weights: weights["conv_in.bias"].fill_(1 / 3))
        assert StableDiffusion(str(own)).unet.conv_in.bias[0].item() == torch.tensor(1 / 3).item()

    def shard(self, own):
        model = UNet2DConditionModel.from_pretrained(own, subfolder="unet")
        shutil.rmtree(own / "unet")
        model.save_pretrained(own / "unet", max_shard_size="10KB")
        return own / "unet/diffusion_pytorch_model.safetensors.index.json"

    def test_a_shard_that_is_missing_is_named(self, own):
        self.shard(own)
        shard = sorted((own / "unet").glob("*.safetensors"))[1]
        shard.unlink()
        assert f"unet/{shard.name}" in refusal(own)

    @pytest.mark.parametrize(
        "content",
        [{}, {"weight_map": []}, {"weight_map": {"a": 3}}, {"weight_map": {"a": "../../x.safetensors"}}],
    )
    def test_an_index_that_leads_nowhere_is_refused(self, own, content):
        index = self.shard(own)
        index.write_text(json.dumps(content))
        assert f"unet/{index.name}" in refusal(own)


class TestShift:
    def test_latents_are_shifted_before_they_are_scaled_and_back(self, own):
        edit(own / "vae/config.json", scaling_factor=0.5)
        plain = StableDiffusion(str(own))
        edit(own / "vae/config.json", shift_factor=0.25)
        shifted = StableDiffusion(str(own))
        image = make_batch().image
        latent = plain.encode(image)
        assert torch.allclose(shifted.encode(image), latent - 0.25 * 0.5, atol=1e-6)
        with torch.no_grad():
            assert torch.allclose(shifted.decode(latent), plain.decode(latent + 0.25 * 0.5), atol=1e-5)
            mean = shifted.vae.encode(image).latent_dist.mean
            assert torch.allclose(shifted.decode(shifted.encode(image)), shifted.vae.decode(mean).sample, atol=1e-5)

    @pytest.mark.parametrize("shift", [0, 0.0, None])
    def test_without_a_shift_no_bit_changes(self, own, base, shift):
        edit(own / "vae/config.json", shift_factor=shift)
        networks = [StableDiffusion(str(folder)) for folder in (own, base)]
        image = make_batch().image
        with torch.no_grad():
            assert torch.equal(*(network(image) for network in networks))
