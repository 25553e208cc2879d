"""Networks of the true size of Stable Diffusion 2, with random weights that never reach the disk."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from diffusers import AutoencoderKL, UNet2DConditionModel

from tests.helpers.tiny import build_base, build_text_encoder

UNET: dict[str, Any] = {
    "sample_size": 96,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "block_out_channels": [320, 640, 1280, 1280],
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
VAE: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
}

# What the libraries report of weights that fit their config.
NOTHING_WRONG: dict[str, list[str]] = {"missing_keys": [], "mismatched_keys": [], "unexpected_keys": []}


@contextmanager
def random_full_size_base(folder: Path) -> Iterator[Path]:
    """Yield a base whose UNet and VAE, as long as the context lasts, load as random ones of Stable Diffusion 2's size.

    The text encoder has one layer alone, and little else than the embeddings' width in common with the true one.

    Args:
        folder: where the small parts are written.
    """
    build_base(folder, vae_factor=8)
    build_text_encoder(width=UNET["cross_attention_dim"], num_heads=16).save_pretrained(folder / "text_encoder")
    for part, config in (("unet", UNET), ("vae", VAE)):
        file = folder / part / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | config))

    def make(kind: type, config: dict[str, Any]) -> Any:
        return patch.object(kind, "from_pretrained", lambda *_, **__: (kind(**config).eval(), NOTHING_WRONG))

    with make(UNet2DConditionModel, UNET), make(AutoencoderKL, VAE):
        yield folder
