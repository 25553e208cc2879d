"""The layout of Qwen-Image and its editors."""

from typing import Any, ClassVar

from torch import Tensor

from lightning_modules.networks.family import Family
from lightning_modules.networks.qwen_image.codec import QwenImageCodec
from lightning_modules.networks.qwen_image.denoiser import QwenImageDenoiser


class QwenImage(Family):
    """Qwen-Image, and its editors of 2025: one encoder of 7 billion weights.

    An editor's encoder may be shown the image beside the prompt. It is not here: the conditioning is the same for all
    images, and the denoiser sees the image itself.
    """

    pipelines = ("QwenImagePipeline", "QwenImageEditPipeline", "QwenImageEditPlusPipeline")
    classes: ClassVar = {
        "transformer": ("QwenImageTransformer2DModel",),
        "vae": ("AutoencoderKLQwenImage",),
        "scheduler": ("FlowMatchEulerDiscreteScheduler",),
        "text_encoder": ("Qwen2_5_VLForConditionalGeneration",),
        "tokenizer": ("Qwen2Tokenizer", "Qwen2TokenizerFast"),
    }
    idle = ("processor",)
    denoiser = QwenImageDenoiser
    codec = QwenImageCodec
    prompt_tokens = 5

    def encode_empty_prompt(self, pipeline: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Return the embedding of the empty prompt in the pipeline's template, without an image: see ``Family``."""
        if hasattr(pipeline, "processor"):
            pipeline.processor = _TextProcessor(pipeline.tokenizer)
        embedding, _ = pipeline.encode_prompt("", device="cpu")
        return {"prompt_embedding": embedding}


class _TextProcessor:
    """What a processor of images and text does with text alone.

    Args:
        tokenizer: the base's.
    """

    def __init__(self, tokenizer: Any) -> None:  # noqa: ANN401
        self._tokenizer = tokenizer

    def __call__(self, text: list[str], images: None, **options: Any) -> Any:  # noqa: ANN401
        return self._tokenizer(text, **options)
