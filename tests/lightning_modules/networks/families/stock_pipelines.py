"""One step of diffusers' own pipelines, with latents, timestep and prompt that a test names."""

from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
from PIL import Image
from torch import Tensor

GUIDANCE = 2.0


@dataclass
class Step:
    """What a pipeline did.

    Attributes:
        model_output: (B,C,h,w), what it gave its scheduler.
        timestep: at which.
        x0: (B,C,h,w), the clean latent that its scheduler returned.
        decoded: (B,3,H,W) in [0, 1].
    """

    model_output: Tensor
    timestep: float
    x0: Tensor
    decoded: Tensor


def to_pillow(image: Tensor) -> Image.Image:
    """Return an image (3,H,W) in [-1, 1] that holds whole numbers of 255 steps."""
    return Image.fromarray(((image + 1) * 127.5).round().permute(1, 2, 0).numpy().astype(np.uint8))


def whole_steps(image: Tensor) -> Tensor:
    """Return an image in [-1, 1] rounded to what an image of eight bits can hold."""
    return ((image + 1) * 127.5).round() / 127.5 - 1


def run(
    folder: Any, sample: Tensor, sigma: float, size: tuple[int, int], image: Tensor | None = None, **given: Any
) -> Step:
    """Run a base's stock pipeline for one step of the empty prompt.

    Args:
        folder: the base.
        sample: (1,C,h,w), what is denoised, as our network has it.
        sigma: the noise level that is asked for; the scheduler may shift it.
        size: height and width in pixels.
        image: (3,H,W) that an editing pipeline is given.
        **given: further arguments of the pipeline.
    """
    left_out = {"processor": None} if (folder / "processor").is_dir() else {}  # which shows images to the encoder
    pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True, **left_out)
    pipeline.set_progress_bar_config(disable=True)
    config = dict(pipeline.scheduler.config)
    if config.get("shift_terminal"):  # one step cannot be both the first and the last of a schedule
        pipeline.scheduler = type(pipeline.scheduler).from_config(config, shift_terminal=None)
    steps: list[tuple[Tensor, float, Tensor]] = []
    original = pipeline.scheduler.step

    def step(model_output: Tensor, timestep: Tensor, latents: Tensor, **options: Any) -> Any:
        following = original(model_output, timestep, latents, **options)
        steps.append((model_output, float(timestep), following[0]))
        return following

    pipeline.scheduler.step = step
    layout = _LAYOUTS[type(pipeline).__name__]
    arguments = {"prompt": "", "height": size[0], "width": size[1], "num_inference_steps": 1, "output_type": "pt"}
    arguments |= layout.arguments(pipeline, sample, sigma, size) | given
    if image is not None:
        arguments["image"] = to_pillow(image)
    decoded = pipeline(**arguments).images
    ((model_output, timestep, following),) = steps
    outputs = [layout.latent(pipeline, tokens, sample, size) for tokens in (model_output, following)]
    return Step(outputs[0], timestep, outputs[1], decoded)


class _Plain:
    """Pipelines whose latents are images of latent pixels."""

    guidance: dict[str, float]

    def __init__(self, **guidance: float) -> None:
        self.guidance = guidance

    def arguments(self, pipeline: Any, sample: Tensor, sigma: float, size: tuple[int, int]) -> dict[str, Any]:
        return {"latents": sample, "sigmas": [sigma], **self.guidance}

    def latent(self, pipeline: Any, tokens: Tensor, sample: Tensor, size: tuple[int, int]) -> Tensor:
        return tokens


class _Diffusion(_Plain):
    """The pipeline whose noise levels are timesteps."""

    def arguments(self, pipeline: Any, sample: Tensor, sigma: float, size: tuple[int, int]) -> dict[str, Any]:
        return {"latents": sample, "timesteps": [round(999 * sigma)], **self.guidance}


class _Packed(_Plain):
    """Pipelines whose latents are tokens of two by two latent pixels."""

    def arguments(self, pipeline: Any, sample: Tensor, sigma: float, size: tuple[int, int]) -> dict[str, Any]:
        latents = pipeline._pack_latents(sample, len(sample), sample.shape[1], *sample.shape[-2:])
        return super().arguments(pipeline, latents, sigma, size)

    def latent(self, pipeline: Any, tokens: Tensor, sample: Tensor, size: tuple[int, int]) -> Tensor:
        return pipeline._unpack_latents(tokens, *size, pipeline.vae_scale_factor).reshape(sample.shape)


class _Kontext(_Packed):
    """The pipeline that would change the size of its images to one that it was trained on."""

    def arguments(self, pipeline: Any, sample: Tensor, sigma: float, size: tuple[int, int]) -> dict[str, Any]:
        own = {"max_area": size[0] * size[1], "_auto_resize": False}
        return super().arguments(pipeline, sample, sigma, size) | own


class _Patches(_Plain):
    """The pipeline whose latents are an image of patches, and tokens within."""

    def latent(self, pipeline: Any, tokens: Tensor, sample: Tensor, size: tuple[int, int]) -> Tensor:
        places = pipeline._prepare_latent_ids(sample)
        return pipeline._unpack_latents_with_ids(tokens, places, *sample.shape[-2:])


_LAYOUTS: dict[str, _Plain] = {
    "StableDiffusion3Pipeline": _Plain(guidance_scale=0.0),
    "FluxPipeline": _Packed(guidance_scale=GUIDANCE),
    "FluxKontextPipeline": _Kontext(guidance_scale=GUIDANCE),
    "QwenImagePipeline": _Packed(true_cfg_scale=1.0),
    "QwenImageEditPlusPipeline": _Packed(true_cfg_scale=1.0),
    "StableDiffusionXLPipeline": _Diffusion(guidance_scale=1.0),
    "ZImagePipeline": _Plain(guidance_scale=0.0),
    "Flux2KleinPipeline": _Patches(guidance_scale=1.0),
}
