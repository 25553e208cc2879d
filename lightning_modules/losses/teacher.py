"""A frozen vision transformer of ``transformers`` (DINOv2, DINOv3) whose features others are compared with."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geometry.errors import InputError
from geometry.host_values import values_like
from lightning_modules.networks.hub import one_line
from lightning_modules.networks.weightless import is_weightless

# Of ImageNet, in [0, 1], which DINOv2 and DINOv3 were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Teacher:
    """Features of images by a frozen model. It is no module: its weights are in no checkpoint, average or export.

    Args:
        source: Hub id or folder of a vision transformer with safetensors weights.
        channels: Width of its tokens.
        input_size: Longest side in pixels at which it sees an image; sides become whole numbers of its patches.

    Raises:
        InputError: A number is out of range.
    """

    def __init__(self, source: str, channels: int, input_size: int = 224) -> None:
        if channels < 1 or input_size < 1:
            raise InputError(f"a teacher needs channels and input_size of at least 1, got {channels}, {input_size}.")
        self.source, self.channels, self.input_size = source, channels, input_size
        self._model: Any = None

    def load(self) -> None:
        """Load the model, unless it is there; predictions and exports never need it.

        Raises:
            InputError: it cannot be had, is of another kind, or is not as wide as was said.
        """
        if self._model is not None:
            return
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        options: dict[str, Any] = {"use_safetensors": True, "trust_remote_code": False, "output_loading_info": True}
        try:
            if is_weightless():
                with torch.device("meta"):
                    model, report = AutoModel.from_config(AutoConfig.from_pretrained(self.source)), {"missing_keys": ()}
            else:
                model, report = AutoModel.from_pretrained(self.source, dtype=torch.float32, **options)
        except Exception as error:  # whatever the library raises on a folder that somebody else wrote
            raise InputError(f"the teacher {self.source} cannot be loaded: {one_line(str(error))}") from error
        if report["missing_keys"]:
            raise InputError(f"the teacher {self.source} lacks weights, for instance {min(report['missing_keys'])}.")
        width, patch = (getattr(model.config, name, None) for name in ("hidden_size", "patch_size"))
        if not isinstance(patch, int) or width != self.channels:
            raise InputError(
                f"the teacher {self.source} has tokens of {width} channels on patches of {patch} pixels; set "
                "teacher_channels to the former. Needed: a vision transformer such as DINOv2."
            )
        self._model = model.eval().requires_grad_(False)

    @property
    def model(self) -> nn.Module | None:
        """The model, if it is loaded."""
        return self._model

    def features(self, image: Tensor) -> Tensor:
        """Return the features (B,D,h,w) of the patches, with the graph of the image.

        Args:
            image: (B,3,H,W) in [-1, 1].
        """
        self.load()
        if self._model.device != image.device:
            self._model.to(image.device)
        patch = self._model.config.patch_size
        shrink = self.input_size / max(image.shape[-2:])
        rows, columns = (max(1, round(side * shrink / patch)) for side in image.shape[-2:])
        with torch.autocast(image.device.type, enabled=False):
            pixels = image.float().clamp(-1, 1) / 2 + 0.5
            pixels = F.interpolate(pixels, (rows * patch, columns * patch), mode="bilinear", antialias=True)
            mean, std = (values_like(values, pixels)[:, None, None] for values in (_MEAN, _STD))
            tokens = self._model(pixel_values=(pixels - mean) / std).last_hidden_state
        # Class and register tokens come first.
        return tokens[:, -rows * columns :].mT.unflatten(2, (rows, columns))


def normalize_spatially(features: Tensor, gamma: float) -> Tensor:
    """Return features without a share of their mean over the image, at a deviation of 1 per channel.

    Args:
        features: (B,D,h,w).
        gamma: share of the mean that is taken off; 0 changes nothing at all.

    Source:
        Singh et al., "What matters for Representation Alignment" (iREPA).
    """
    if gamma == 0:
        return features
    centred = features - gamma * features.mean(dim=(2, 3), keepdim=True)
    return centred / (features.std(dim=(2, 3), keepdim=True, unbiased=False) + 1e-6)


def make_projector(kind: str, channels: int, teacher_channels: int) -> nn.Module:
    """Return a small network from the channels of a layer to those of a teacher.

    Args:
        kind: conv is a 3x3 convolution (iREPA); mlp are two layers on each pixel (REPA, DepthMaster).
        channels: of the layer.
        teacher_channels: of the teacher.
    """
    if kind == "conv":
        return nn.Conv2d(channels, teacher_channels, 3, padding=1)
    hidden = nn.Conv2d(channels, teacher_channels, 1)
    return nn.Sequential(hidden, nn.SiLU(), nn.Conv2d(teacher_channels, teacher_channels, 1))
