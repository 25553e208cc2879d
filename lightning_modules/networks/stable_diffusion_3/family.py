"""The layout of Stable Diffusion 3 and 3.5."""

from typing import Any, ClassVar

from torch import Tensor

from lightning_modules.networks.family import Family
from lightning_modules.networks.stable_diffusion_3.denoiser import StableDiffusion3Denoiser

_CLIP = ("CLIPTextModelWithProjection",)
_CLIP_TOKENIZER = ("CLIPTokenizer", "CLIPTokenizerFast")


class StableDiffusion3(Family):
    """Stable Diffusion 3 and 3.5: two CLIP encoders and, unless it was left out, T5."""

    pipelines = ("StableDiffusion3Pipeline",)
    classes: ClassVar = {
        "transformer": ("SD3Transformer2DModel",),
        "vae": ("AutoencoderKL",),
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
        "text_encoder": _CLIP,
        "text_encoder_2": _CLIP,
        "text_encoder_3": ("T5EncoderModel",),
        "tokenizer": _CLIP_TOKENIZER,
        "tokenizer_2": _CLIP_TOKENIZER,
        "tokenizer_3": ("T5TokenizerFast", "T5Tokenizer"),
    }
    optional = ("text_encoder_3", "tokenizer_3")
    denoiser = StableDiffusion3Denoiser
    widths: ClassVar = {**Family.widths, "pooled_prompt_embedding": "pooled_projection_dim"}
    prompt_tokens = 77 + 256  # CLIP's and T5's

    def encode_empty_prompt(self, pipeline: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Return embedding and pooled embedding: see ``Family``."""
        embedding, _, pooled, _ = pipeline.encode_prompt("", "", "", device="cpu", do_classifier_free_guidance=False)
        return {"prompt_embedding": embedding, "pooled_prompt_embedding": pooled}
