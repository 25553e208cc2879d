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
    """Return an image in [-1, 1] rounded to what a picture of eight bits can hold."""
    return ((image + 1) * 127.5).round() / 127.5 - 1


def run(folder: Any, sample: Tensor, sigma: float, image: Tensor | None = None) -> Step:
    """Run a base's stock pipeline for one step of the empty prompt.

    Args:
        folder: the base.
        sample: (1,C,h,w), what is denoised, as our network has it.
        sigma: the noise level that is asked for; the scheduler may shift it.
        image: (3,H,W) that an editing pipeline is given.
    """
    pipeline: Any = diffusers.DiffusionPipeline.from_pretrained(folder, local_files_only=True)
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
    height, width = (8 * side for side in sample.shape[-2:])
    layout = _LAYOUTS[type(pipeline).__name__]
    arguments = layout.arguments(pipeline, sample, height, width)
    if image is not None:
        arguments |= {"image": to_pillow(image)}
    decoded = pipeline(prompt="", output_type="pt", **layout.levels(sigma), **arguments).images
    ((model_output, timestep, following),) = steps
    outputs = (layout.latent(pipeline, tokens, height, width) for tokens in (model_output, following))
    return Step(next(outputs), timestep, next(outputs), decoded)


class _Plain:
    """Pipelines whose latents are images of latent pixels."""

    def levels(self, sigma: float) -> dict[str, Any]:
        return {"sigmas": [sigma], "num_inference_steps": 1}

    def arguments(self, pipeline: Any, sample: Tensor, height: int, width: int) -> dict[str, Any]:
        return {"latents": sample, "height": height, "width": width, "guidance_scale": 0.0}

    def latent(self, pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
        return tokens


class _Packed(_Plain):
    """Pipelines whose latents are tokens."""

    def arguments(self, pipeline: Any, sample: Tensor, height: int, width: int) -> dict[str, Any]:
        latents = pipeline._pack_latents(sample, len(sample), sample.shape[1], *sample.shape[-2:])
        return {"latents": latents, "height": height, "width": width, "guidance_scale": GUIDANCE}

    def latent(self, pipeline: Any, tokens: Tensor, height: int, width: int) -> Tensor:
        return pipeline._unpack_latents(tokens, height, width, pipeline.vae_scale_factor)


class _Kontext(_Packed):
    """The pipeline that would change the size of its images to one that it was trained on."""

    def arguments(self, pipeline: Any, sample: Tensor, height: int, width: int) -> dict[str, Any]:
        return super().arguments(pipeline, sample, height, width) | {"max_area": height * width, "_auto_resize": False}


_LAYOUTS: dict[str, _Plain] = {
    "StableDiffusion3Pipeline": _Plain(),
    "FluxPipeline": _Packed(),
    "FluxKontextPipeline": _Kontext(),
}
