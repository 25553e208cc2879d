"""A pipeline of diffusers that predicts in a single step, for bases that no stock pipeline of geometry holds.

``onestep export`` writes this file into a folder, followed by the parts of the network it exports. It needs torch,
diffusers and safetensors, and nothing else of this project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from huggingface_hub import hf_hub_download
from safetensors.torch import load_file
from torch import Tensor

CONDITIONING = "conditioning.safetensors"
SETTINGS = "single_step.json"


@dataclass
class SingleStepOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        prediction: (N,H,W,C) float32, of N images of the same size.
    """

    prediction: np.ndarray


class SingleStepPipeline(DiffusionPipeline):
    """Image in, depth or another image of geometry out, in one evaluation of the denoiser.

    Args:
        vae: The autoencoder.
        transformer: The denoiser, where it is a transformer.
        unet: The denoiser, where it is a UNet.
    """

    vae: Any
    transformer: Any
    unet: Any
    config: Any

    _optional_components = ["transformer", "unet"]  # noqa: RUF012 - as diffusers has it

    def __init__(self, vae: Any, transformer: Any = None, unet: Any = None) -> None:  # noqa: ANN401
        super().__init__()
        self.register_modules(vae=vae, transformer=transformer, unet=unet)  # type: ignore[attr-defined]
        self._known: tuple[dict[str, Any], dict[str, Tensor]] | None = None

    @torch.inference_mode()
    def __call__(
        self,
        image: Any,  # noqa: ANN401 - what people have
        processing_resolution: int | None = None,
        return_dict: bool = True,
    ) -> SingleStepOutput | tuple[np.ndarray]:
        """Return the prediction for an image, or for several of the same size, at the size of the image.

        Args:
            image: Pillow image, array (H,W,3) uint8 or float in [0, 1], tensor (3,H,W) in [0, 1], or a list of them.
            processing_resolution: longest side in pixels at which the network sees the image; 0 is its own size, None
                that of the training.
            return_dict: False returns a tuple.
        """
        settings, conditioning = self._read()
        images = torch.stack([_as_tensor(each) for each in (image if isinstance(image, list | tuple) else [image])])
        height, width = images.shape[-2:]
        longest = settings["processing_res"] if processing_resolution is None else processing_resolution
        size = [max(1, side * longest // max(height, width)) if longest else side for side in (height, width)]
        if size != [height, width]:
            images = F.interpolate(images, size, mode="bilinear", antialias=True)
        multiple = settings["size_multiple"]
        images = F.pad(images, (0, -size[1] % multiple, 0, -size[0] % multiple), mode="replicate") * 2 - 1
        decoded = self._decode(images.to(self.vae.device, self.vae.dtype), settings, conditioning)
        modality = globals()["Modality"](settings["modality"])
        published = modality.publish(modality.from_image(decoded.float().cpu()))[..., : size[0], : size[1]]
        if size != [height, width]:
            published = F.interpolate(published, (height, width), mode="bilinear")
        prediction = modality.renormalize(published).movedim(1, -1).contiguous().numpy()
        return SingleStepOutput(prediction) if return_dict else (prediction,)

    def _decode(self, images: Tensor, settings: Mapping[str, Any], conditioning: Mapping[str, Tensor]) -> Tensor:
        """Return what the decoder makes of the clean latents of images (B,3,H,W) in [-1, 1]."""
        model = self.unet if self.transformer is None else self.transformer
        parts: dict[str, Any] = globals()  # the classes that export wrote below
        codec = parts["Codec"](settings["codec"], self.vae)
        denoiser = parts["Denoiser"](settings["denoiser"], model)
        latent = codec.normalize(codec.latent_mean(images)).to(model.dtype)
        seen = torch.cat([latent, torch.zeros_like(latent)], dim=1) if settings["sees_noise"] else latent
        timestep = torch.tensor(settings["timestep"], device=latent.device)
        given = {name: tensor.to(latent.device, latent.dtype) for name, tensor in conditioning.items()}
        output = denoiser.model_output(seen, timestep, given)
        if settings["part_of_output"] is not None:
            output = output.chunk(2, dim=1)[settings["part_of_output"]]
        clean = latent - output if settings["is_residual"] else settings["output_to_clean"] * output
        return codec.decoded(codec.denormalize(clean.to(self.vae.dtype)))

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the settings and the embedding of the empty prompt, which lie beside the weights."""
        if self._known is None:
            source = cast(str, self.config["_name_or_path"])
            files = [
                Path(source, name) if Path(source).is_dir() else Path(hf_hub_download(source, name))
                for name in (SETTINGS, CONDITIONING)
            ]
            self._known = json.loads(files[0].read_text(encoding="utf-8")), load_file(files[1])
        return self._known


def _as_tensor(image: Any) -> Tensor:  # noqa: ANN401 - what people have
    """Return an image as (3,H,W) float32 in [0, 1]."""
    if isinstance(image, Tensor):
        return image.detach().float().cpu()
    pixels = np.asarray(image if isinstance(image, np.ndarray) else image.convert("RGB"))
    largest = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 1
    return torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 0) / largest
