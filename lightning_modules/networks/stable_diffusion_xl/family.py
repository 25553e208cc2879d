"""The layout of Stable Diffusion XL."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from lightning_modules.networks.base_files import Base
from lightning_modules.networks.codec import Codec
from lightning_modules.networks.family import Family
from lightning_modules.networks.noise_process import NoiseProcess
from lightning_modules.networks.stable_diffusion.scheduler import load_noise_process
from lightning_modules.networks.stable_diffusion_xl.denoiser import StableDiffusionXLDenoiser

_CLIP_TOKENIZER = ("CLIPTokenizer", "CLIPTokenizerFast")


class StableDiffusionXL(Family):
    """Stable Diffusion XL's base models: two CLIP encoders, side by side."""

    pipelines = ("StableDiffusionXLPipeline",)
    classes: ClassVar = {
        "unet": ("UNet2DConditionModel",),
        "vae": ("AutoencoderKL",),
        "scheduler": (
            "EulerDiscreteScheduler",
            "EulerAncestralDiscreteScheduler",
            "DDIMScheduler",
            "DDPMScheduler",
            "PNDMScheduler",
            "DPMSolverMultistepScheduler",
            "UniPCMultistepScheduler",
        ),
        "text_encoder": ("CLIPTextModel",),
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer": _CLIP_TOKENIZER,
        "tokenizer_2": _CLIP_TOKENIZER,
    }
    denoiser = StableDiffusionXLDenoiser
    prompt_tokens = 77

    def check(self, base: Base, configs: Mapping[str, dict[str, Any]]) -> None:
        """Refuse UNets that want other things beside the prompt: see ``Family``."""
        file, unet = "unet/config.json", configs["unet"]
        if unet["addition_embed_type"] != "text_time":
            found = unet["addition_embed_type"]
            raise base.refusal(
                file, f"has addition_embed_type: {found!r}. Needed: text_time, as in Stable Diffusion XL."
            )
        for name in ("time_cond_proj_dim", "encoder_hid_dim", "class_embed_type"):
            if unet[name] is not None:
                raise base.refusal(file, f"has {name}: {unet[name]!r}, which this project does not have to give.")

    def encode_empty_prompt(self, pipeline: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Return embedding and pooled embedding: see ``Family``."""
        embedding, _, pooled, _ = pipeline.encode_prompt("", "", device="cpu", do_classifier_free_guidance=False)
        return {"prompt_embedding": embedding, "pooled_prompt_embedding": pooled}

    def conditioning_widths(self, config: Mapping[str, Any]) -> dict[str, int]:
        """Return the widths of both: see ``Family``."""
        sizes = 6 * config["addition_time_embed_dim"]
        return {
            "prompt_embedding": config["cross_attention_dim"],
            "pooled_prompt_embedding": config["projection_class_embeddings_input_dim"] - sizes,
        }

    def denoiser_settings(self, codec: Codec, guidance: float | None) -> dict[str, Any]:
        """Return the codec's factor, for the denoiser tells the UNet sizes in pixels: see ``Family``."""
        return {"pixels_per_latent": codec.pixels_per_latent}

    def make_noise_process(self, base: Base) -> NoiseProcess:
        """Return the noise schedule of diffusion: see ``Family``."""
        return load_noise_process(base, zero_terminal_snr=False)
