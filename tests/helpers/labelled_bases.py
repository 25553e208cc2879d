"""Tiny bases whose UNet takes class labels, as Lotus and GeoWizard publish theirs."""

import json
import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.helpers.tiny import PROMPT_WIDTH, build_base

IMAGE_SIDE = 16


def build_lotus(folder: Path) -> Path:
    """Write a base whose UNet sees the image alone, with labels of two outputs."""
    build_base(folder, "sample")
    add_labels(folder, 4)
    return folder


def build_geowizard(folder: Path, second_version: bool = False) -> Path:
    """Write a base of 8 channels with labels of two outputs and a domain, and an image encoder in place of a prompt's.

    Args:
        folder: where to.
        second_version: with a text encoder, and labels without a domain.
    """
    build_base(folder, in_channels=8)
    add_labels(folder, 4 if second_version else 10)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "DepthNormalEstimationPipeline"}))
    if second_version:
        return folder
    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
    config = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        projection_dim=PROMPT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=IMAGE_SIDE,
        patch_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
    (folder / "feature_extractor").mkdir()
    colours = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "feature_extractor/preprocessor_config.json").write_text(json.dumps(colours))
    return folder


def add_labels(folder: Path, width: int) -> None:
    """Give the UNet of a base an embedding of class labels."""
    config = json.loads((folder / "unet/config.json").read_text())
    old = UNet2DConditionModel.from_pretrained(folder / "unet")
    labelled = config | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": width}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        unet = UNet2DConditionModel.from_config(labelled)
    unet.load_state_dict(old.state_dict(), strict=False)
    unet.save_pretrained(folder / "unet")
