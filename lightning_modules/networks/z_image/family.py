"""The layout of Z-Image."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from lightning_modules.networks.base_files import Base
from lightning_modules.networks.family import Family
from lightning_modules.networks.z_image.denoiser import ZImageDenoiser


class ZImage(Family):
    """Z-Image and Z-Image-Turbo: one encoder of 4 billion weights, its layer before the last."""

    pipelines = ("ZImagePipeline",)
    classes: ClassVar = {
        "transformer": ("ZImageTransformer2DModel",),
        "vae": ("AutoencoderKL",),
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
        "text_encoder": ("Qwen3Model", "Qwen3ForCausalLM"),
        "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    }
    denoiser = ZImageDenoiser
    widths: ClassVar = {"prompt_embedding": "cap_feat_dim"}
    prompt_tokens = 12

    def check(self, base: Base, configs: Mapping[str, dict[str, Any]]) -> None:
        """Refuse other patches, and transformers that are shown an image by another encoder: see ``Family``."""
        file, config = "transformer/config.json", configs["transformer"]
        if 2 not in config["all_patch_size"] or 1 not in config["all_f_patch_size"]:
            raise base.refusal(file, f"has all_patch_size: {config['all_patch_size']}. Needed: patches of 2 by 2.")
        if config["siglip_feat_dim"] is not None:
            raise base.refusal(
                file, f"has siglip_feat_dim: {config['siglip_feat_dim']}, an encoder of images that is not read here."
            )

    def encode_empty_prompt(self, pipeline: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Return the embedding of the empty prompt in the tokenizer's template: see ``Family``."""
        (embedding,), _ = pipeline.encode_prompt("", device="cpu", do_classifier_free_guidance=False)
        return {"prompt_embedding": embedding[None]}
