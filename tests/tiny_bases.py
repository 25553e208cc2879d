"""Tiny random bases of every family, written by diffusers' own pipelines in the layout that the hub has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers import pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

_PROMPT_TOKENS = 8
# What the hub's model_index.json call classes that transformers has renamed since.
_HUB_NAMES = {"T5Tokenizer": "T5TokenizerFast"}
_HUB_NAMES_OF = {"flux_2_klein": {"Qwen2Tokenizer": "Qwen2TokenizerFast"}}


def write_base(folder: Path, kind: str) -> Path:
    """Write a random base.

    Args:
        folder: where to.
        kind: one of ``KINDS``.

    Returns:
        The folder.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = KINDS[kind]()
        for name, part in pipeline.components.items():
            if isinstance(part, torch.nn.Module):
                _spread(part, gain=1.5 if name in ("transformer", "unet") else None)
    pipeline.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    for entry in index.values():
        if isinstance(entry, list):
            entry[1] = (_HUB_NAMES | _HUB_NAMES_OF.get(kind, {})).get(entry[1], entry[1])
    if "processor" in index:  # transformers builds none without torchvision
        index["processor"] = ["transformers", "Qwen2VLProcessor"]
        (folder / "processor").mkdir()
        (folder / "processor/preprocessor_config.json").write_text('{"processor_class": "Qwen2VLProcessor"}')
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def _spread(model: torch.nn.Module, gain: float | None) -> None:
    """Draw weights that diffusers begins at 0 or 1, so that a part that is left out is noticed.

    Args:
        model: the model.
        gain: draw the matrices as well, so large that everything the model is given tells on its output.
    """
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or not weight.abs().sum() or not weight.isfinite().all() or "pad_token" in name:
            torch.nn.init.normal_(weight, mean=float("norm" in name and "weight" in name), std=0.1)
        elif gain is not None:
            torch.nn.init.normal_(weight, std=gain / weight[0].numel() ** 0.5)


def _vae(**options: Any) -> diffusers.AutoencoderKL:
    settings = {
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "block_out_channels": [4] * 4,
        "layers_per_block": 1,
        "latent_channels": 16,
        "norm_num_groups": 2,
        "mid_block_add_attention": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    return diffusers.AutoencoderKL(**(settings | options))


def _clip(kind: type, width: int, projection: int = 8) -> Any:
    config = CLIPTextConfig(
        vocab_size=3,
        hidden_size=width,
        intermediate_size=8,
        projection_dim=projection,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_PROMPT_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return kind(config).eval()


def _clip_tokenizer() -> CLIPTokenizer:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "!": 2}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>", model_max_length=_PROMPT_TOKENS)


def _t5(width: int) -> T5EncoderModel:
    config = T5Config(vocab_size=4, d_model=width, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def _t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("a", -1.0)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _stable_diffusion_3(**options: Any) -> diffusers.StableDiffusion3Pipeline:
    settings = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 2,
        "joint_attention_dim": 24,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 16,
        "pos_embed_max_size": 12,
    }
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(**(settings | options)),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(scaling_factor=1.5305, shift_factor=0.0609),
        text_encoder=_clip(CLIPTextModelWithProjection, 8),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection, 12),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(24),
        tokenizer_3=_t5_tokenizer(),
    )


def _stable_diffusion_3_5() -> diffusers.StableDiffusion3Pipeline:
    return _stable_diffusion_3(dual_attention_layers=(0,), qk_norm="rms_norm")


def _flux(kind: type = diffusers.FluxPipeline) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=8,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15, max_image_seq_len=4096
    )
    return kind(
        transformer=transformer,
        scheduler=scheduler,
        vae=_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_clip(CLIPTextModel, 8),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_t5(12),
        tokenizer_2=_t5_tokenizer(),
    )


def _flux_kontext() -> diffusers.FluxKontextPipeline:
    return _flux(diffusers.FluxKontextPipeline)


def _qwen_tokenizer() -> Qwen2Tokenizer:
    """Return a tokenizer of bytes, with the signs of chats."""
    bytes_ = {each: number for number, each in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Qwen2Tokenizer(vocab=bytes_, merges=[], model_max_length=1024)
    signs = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": signs})
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


_QWEN_WORDS = 272


def _qwen3(kind: type, width: int, num_layers: int) -> Any:
    config = Qwen3Config(
        vocab_size=_QWEN_WORDS,
        hidden_size=width,
        intermediate_size=8,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
    )
    return kind(config).eval()


def _qwen_vision(width: int) -> Qwen2_5_VLForConditionalGeneration:
    text = {
        "vocab_size": _QWEN_WORDS,
        "hidden_size": width,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]},
    }
    vision = {"depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 2, "out_hidden_size": width}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)).eval()


def _qwen_image(kind: type = diffusers.QwenImagePipeline, **parts: Any) -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(2, 2, 4),
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        max_image_seq_len=8192,
        shift_terminal=0.02,
    )
    return kind(
        transformer=transformer,
        scheduler=scheduler,
        vae=diffusers.AutoencoderKLQwenImage(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        text_encoder=_qwen_vision(12),
        tokenizer=_qwen_tokenizer(),
        **parts,
    )


def _qwen_image_edit_plus() -> diffusers.QwenImageEditPlusPipeline:
    return _qwen_image(diffusers.QwenImageEditPlusPipeline, processor=None)


def _stable_diffusion_xl() -> diffusers.StableDiffusionXLPipeline:
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        block_out_channels=[8, 16],
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32,
        cross_attention_dim=20,
    )
    scheduler = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    return diffusers.StableDiffusionXLPipeline(
        unet=unet,
        scheduler=scheduler,
        vae=_vae(latent_channels=4, scaling_factor=0.13025, use_quant_conv=True, use_post_quant_conv=True),
        text_encoder=_clip(CLIPTextModel, 8),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection, 12),
        tokenizer_2=_clip_tokenizer(),
    )


def _z_image() -> diffusers.ZImagePipeline:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=16,
        dim=64,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=8,
        n_kv_heads=8,
        cap_feat_dim=12,
        axes_dims=[2, 2, 4],
        axes_lens=[256, 32, 32],
    )
    return diffusers.ZImagePipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=_qwen3(Qwen3Model, 12, 2),
        tokenizer=_qwen_tokenizer(),
    )


def _flux_2_klein() -> diffusers.Flux2KleinPipeline:
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )
    torch.nn.init.normal_(vae.bn.running_mean)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2.0)
    transformer = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=False,
    )
    return diffusers.Flux2KleinPipeline(
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=_qwen3(Qwen3ForCausalLM, 4, 28),
        tokenizer=_qwen_tokenizer(),
        is_distilled=True,
    )


KINDS: dict[str, Callable[[], Any]] = {
    "stable_diffusion_3": _stable_diffusion_3,
    "stable_diffusion_3_5": _stable_diffusion_3_5,
    "flux": _flux,
    "flux_kontext": _flux_kontext,
    "qwen_image": _qwen_image,
    "qwen_image_edit_plus": _qwen_image_edit_plus,
    "stable_diffusion_xl": _stable_diffusion_xl,
    "z_image": _z_image,
    "flux_2_klein": _flux_2_klein,
}
