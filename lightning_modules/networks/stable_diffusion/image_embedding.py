"""The embedding of the image itself in place of a prompt's, as in variations of images."""

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geometry.files.json_text import is_finite_number
from lightning_modules.networks.base_files import Base
from lightning_modules.networks.pretrained import load_encoder

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

ENCODER, PROCESSOR_PART = "image_encoder", "feature_extractor"


class ImageEmbedding(nn.Module):
    """CLIP's embedding of an image, as one token for cross-attention. Frozen, and in eval mode always.

    Args:
        encoder: CLIP's image encoder.
        mean: of the three colours, in [0, 1].
        std: of the three colours.

    Source:
        Fu et al., "GeoWizard", ECCV 2024, and its public code: bicubic, without a crop.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: "CLIPVisionModelWithProjection", mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.side: int = encoder.config.image_size  # type: ignore[assignment]
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def train(self, mode: bool = True) -> "ImageEmbedding":
        """Stay in eval mode.

        Args:
            mode: what the network is set to.
        """
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Return the embedding.

        Args:
            image: (B,3,H,W) in [-1, 1].

        Returns:
            (B,1,D).
        """
        small = F.interpolate(
            image.to(self.mean.dtype) / 2 + 0.5, (self.side, self.side), mode="bicubic", antialias=True
        )
        return self.encoder((small - self.mean) / self.std).image_embeds[:, None]


def load_image_embedding(base: Base) -> ImageEmbedding:
    """Return what embeds images for a base.

    Args:
        base: the base, checked, with its image encoder.

    Raises:
        InputError: a part cannot be read, or its weights do not fit.
    """
    from transformers import CLIPVisionModelWithProjection

    file = f"{PROCESSOR_PART}/preprocessor_config.json"
    config = base.read_json(file)
    mean, std = (_three(base, file, config, name) for name in ("image_mean", "image_std"))
    if not all(value > 0 for value in std):
        raise base.refusal(file, f"has image_std: {std}. Needed: three numbers above 0.")
    return ImageEmbedding(load_encoder(CLIPVisionModelWithProjection, base, ENCODER, torch.float32), mean, std)


def _three(base: Base, file: str, config: dict[str, Any], name: str) -> list[float]:
    values = config.get(name)
    if isinstance(values, list) and len(values) == 3 and all(map(is_finite_number, values)):
        return [float(each) for each in values]
    raise base.refusal(file, f"has {name}: {values!r}. Needed: three numbers.")
