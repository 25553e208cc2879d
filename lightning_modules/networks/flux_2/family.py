"""The layout of FLUX.2 klein."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from lightning_modules.networks.base_files import Base
from lightning_modules.networks.family import Family
from lightning_modules.networks.flux_2.codec import Flux2Codec
from lightning_modules.networks.flux_2.denoiser import Flux2Denoiser


class Flux2Klein(Family):
    """FLUX.2 klein, distilled or not: one encoder, three of its layers side by side, 512 tokens."""

    pipelines = ("Flux2KleinPipeline",)
    classes: ClassVar = {
        "transformer": ("Flux2Transformer2DModel",),
        "vae": ("AutoencoderKLFlux2",),
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
        "text_encoder": ("Qwen3ForCausalLM",),
        "tokenizer": ("Qwen2TokenizerFast", "Qwen2Tokenizer"),
    }
    denoiser = Flux2Denoiser
    codec = Flux2Codec

    def check(self, base: Base, configs: Mapping[str, dict[str, Any]]) -> None:
        """Refuse transformers that are told a guidance scale, as those of FLUX.2 dev are: see ``Family``."""
        if configs["transformer"]["guidance_embeds"]:
            raise base.refusal(
                "transformer/config.json", "has guidance_embeds: true, as FLUX.2 dev has. Needed: a klein."
            )

    def encode_empty_prompt(self, pipeline: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Return the embedding of the empty prompt in the tokenizer's template: see ``Family``."""
        embedding, _ = pipeline.encode_prompt("", device="cpu")
        return {"prompt_embedding": embedding}

    def shift(self, num_tokens: int, num_steps: int, config: Mapping[str, Any]) -> float:
        """Return mu, which depends on the number of steps as well: see ``Family``."""
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        return compute_empirical_mu(num_tokens, num_steps)
