"""Tiny random bases of every family, written by diffusers' own pipelines in the layout that the hub has."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

_PROMPT_TOKENS = 8
# What the hub's model_index.json call classes that transformers has renamed since.
_HUB_NAMES = {"T5Tokenizer": "T5TokenizerFast"}


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
        for part in pipeline.components.values():
            if isinstance(part, torch.nn.Module):
                _spread(part)
    pipeline.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    for entry in index.values():
        if isinstance(entry, list):
            entry[1] = _HUB_NAMES.get(entry[1], entry[1])
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))
    return folder


def _spread(model: torch.nn.Module) -> None:
    """Draw weights that diffusers begins at 0 or 1, so that a part that is left out is noticed."""
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or not weight.abs().sum() or not weight.isfinite().all() or "pad_token" in name:
            torch.nn.init.normal_(weight, mean=float("norm" in name and "weight" in name), std=0.1)


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


KINDS: dict[str, Callable[[], Any]] = {
    "stable_diffusion_3": _stable_diffusion_3,
    "stable_diffusion_3_5": _stable_diffusion_3_5,
    "flux": _flux,
    "flux_kontext": _flux_kontext,
}
