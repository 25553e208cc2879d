"""The two toys: a generator in the layout of Stable Diffusion 3, and an editor in that of FLUX.1 Kontext."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import Tensor

from lightning_modules.networks.denoiser import Denoiser
from lightning_modules.networks.flux.denoiser import FluxDenoiser
from lightning_modules.networks.stable_diffusion_3.denoiser import StableDiffusion3Denoiser

_PROMPT_TOKENS, _PROMPT_WIDTH, _POOLED_WIDTH = 4, 32, 16
_NO_ENCODERS: list[None] = [None, None]


@dataclass(frozen=True)
class Toy:
    """A toy base: how its folder is called and what is in it.

    Attributes:
        pipeline: class of diffusers that its ``model_index.json`` names.
        make_model: returns its transformer, at random.
        wrap: returns the transformer as this project calls it.
        edits: it sees another image beside the noisy one, and is to give that image as it should be.
        scheduler: settings of its scheduler.
        encoders: parts of the family that the folder leaves out, because conditioning.safetensors stands for them.
    """

    pipeline: str
    make_model: Callable[[], Any]
    wrap: Callable[[Any], Denoiser]
    edits: bool
    scheduler: dict[str, Any]
    encoders: tuple[str, ...]

    transformer: ClassVar[str] = "transformer"

    def index(self) -> dict[str, Any]:
        """Return the content of ``model_index.json``."""
        return {
            "_class_name": self.pipeline,
            "transformer": ["diffusers", self.make_model.__annotations__["return"].__name__],
            "vae": ["diffusers", "AutoencoderKL"],
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            **{name: _NO_ENCODERS for name in self.encoders},
        }


def conditioning() -> dict[str, Tensor]:
    """Return what both toys are given in place of an embedded prompt: the same random numbers always."""
    generator = torch.Generator().manual_seed(6)
    return {
        "prompt_embedding": torch.randn(1, _PROMPT_TOKENS, _PROMPT_WIDTH, generator=generator),
        "pooled_prompt_embedding": torch.randn(1, _POOLED_WIDTH, generator=generator),
    }


def _stable_diffusion_3() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=5,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=_PROMPT_WIDTH,
        caption_projection_dim=128,
        pooled_projection_dim=_POOLED_WIDTH,
        pos_embed_max_size=96,
    )


def _flux() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=_PROMPT_WIDTH,
        pooled_projection_dim=_POOLED_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )


TOYS = {
    "tiny-stable-diffusion-3": Toy(
        "StableDiffusion3Pipeline",
        _stable_diffusion_3,
        lambda model: StableDiffusion3Denoiser(model, conditioning(), input_mode="image"),
        edits=False,
        scheduler={"shift": 3.0},
        encoders=(
            *("text_encoder", "text_encoder_2", "text_encoder_3"),
            *("tokenizer", "tokenizer_2", "tokenizer_3", "image_encoder", "feature_extractor"),
        ),
    ),
    "tiny-flux-kontext": Toy(
        "FluxKontextPipeline",
        _flux,
        lambda model: FluxDenoiser(model, conditioning(), guidance=1.0, input_mode="sequence"),
        edits=True,
        scheduler={
            "shift": 3.0,
            "use_dynamic_shifting": True,
            "base_shift": 0.5,
            "max_shift": 1.15,
            "base_image_seq_len": 256,
            "max_image_seq_len": 4096,
        },
        encoders=(
            *("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
            *("image_encoder", "feature_extractor"),
        ),
    ),
}
"""The toys by the names of their folders."""
