"""The layout of FLUX.1."""

from typing import Any, ClassVar

from torch import Tensor

from lightning_modules.networks.codec import Codec
from lightning_modules.networks.family import Family
from lightning_modules.networks.flux.denoiser import FluxDenoiser


class Flux(Family):
    """FLUX.1: CLIP's pooled embedding, and T5's of 512 tokens.

    Guidance: the denoiser was distilled to be told a guidance scale; 1 is that of no guidance, under which it says what
    follows from the prompt alone.
    """

    pipelines = ("FluxPipeline", "FluxKontextPipeline")
    classes: ClassVar = {
        "transformer": ("FluxTransformer2DModel",),
        "vae": ("AutoencoderKL",),
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("T5EncoderModel",),
        "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
        "tokenizer_2": ("T5TokenizerFast", "T5Tokenizer"),
    }
    denoiser = FluxDenoiser
    widths: ClassVar = {**Family.widths, "pooled_prompt_embedding": "pooled_projection_dim"}
    guidance = 1.0

    def encode_empty_prompt(self, pipeline: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Return embedding and pooled embedding: see ``Family``."""
        embedding, pooled, _ = pipeline.encode_prompt("", "", device="cpu")
        return {"prompt_embedding": embedding, "pooled_prompt_embedding": pooled}

    def denoiser_settings(self, codec: Codec, guidance: float | None) -> dict[str, Any]:
        """Return the guidance scale, which the denoiser may be told: see ``Family``."""
        return {"guidance": guidance}
