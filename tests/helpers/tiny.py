"""Tiny random things to train on: a base model in the diffusers layout, batches, and a data module in memory."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from lightning.pytorch import LightningDataModule
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from geometry.batch import DatasetInfo, GeometryBatch, Target

PROMPT_WIDTH = 16
PROMPT_TOKENS = 8


def build_base(
    folder: Path,
    prediction_type: str = "v_prediction",
    in_channels: int = 4,
    vae_factor: int = 4,
    seed: int = 0,
    unet_levels: int = 2,
    **scheduler_options: Any,
) -> Path:
    """Write a random Stable Diffusion of a few thousand weights, with SD 2's noise schedule.

    Args:
        folder: where to.
        prediction_type: v_prediction, epsilon or sample.
        in_channels: input channels of the UNet: 4, or 8 as in Marigold.
        vae_factor: pixels per latent pixel: 2, 4 or 8.
        seed: seed of the weights.
        unet_levels: resolutions of the UNet, each half of the one before.
        **scheduler_options: further settings of the scheduler, for instance clip_sample.

    Returns:
        The folder.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _build_vae(vae_factor).save_pretrained(folder / "vae")
        _build_unet(in_channels, unet_levels).save_pretrained(folder / "unet")
        build_text_encoder().save_pretrained(folder / "text_encoder")
    _build_tokenizer().save_pretrained(folder / "tokenizer")
    options = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1} | scheduler_options
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type, **options
    ).save_pretrained(folder / "scheduler")
    return folder


def _build_vae(factor: int) -> AutoencoderKL:
    levels = factor.bit_length()
    return AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=[8] * levels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )


def _build_unet(in_channels: int, levels: int = 2) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        down_block_types=["CrossAttnDownBlock2D", *["DownBlock2D"] * (levels - 1)],
        up_block_types=[*["UpBlock2D"] * (levels - 1), "CrossAttnUpBlock2D"],
        block_out_channels=[8, *[16] * (levels - 1)],
        layers_per_block=1,
        cross_attention_dim=PROMPT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    torch.nn.init.normal_(unet.conv_in.bias, std=0.5)  # a bias of zero could be halved unnoticed
    return unet


def build_text_encoder(width: int = PROMPT_WIDTH, num_heads: int = 2) -> CLIPTextModel:
    """Return a random text encoder of one layer, for prompts without words."""
    config = CLIPTextConfig(
        vocab_size=3,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=num_heads,
        max_position_embeddings=PROMPT_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    return CLIPTextModel(config)


def _build_tokenizer() -> CLIPTokenizer:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "!": 2}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="!", model_max_length=PROMPT_TOKENS)


def make_batch(
    num_images: int = 2,
    height: int = 32,
    width: int = 32,
    seed: int = 0,
    modalities: Collection[str] = ("depth", "normals"),
    dataset: str = "tiny",
) -> GeometryBatch:
    """Return random images with slanted, bumpy planes in 2 to 8 metres, a tenth of the pixels unknown."""
    generator = torch.Generator().manual_seed(seed)
    depth = 2 + 3 * torch.rand(num_images, 1, height, width, generator=generator)
    depth = depth + 3 * torch.linspace(0, 1, width)
    valid_mask = torch.rand(depth.shape, generator=generator) > 0.1
    targets = {"depth": Target(depth * valid_mask, valid_mask)}
    image = torch.rand(num_images, 3, height, width, generator=generator) * 2 - 1
    vectors = torch.randn(num_images, 3, height, width, generator=generator) + torch.tensor([0, 0, 3.0])[:, None, None]
    targets["normals"] = Target(torch.nn.functional.normalize(vectors, dim=1) * valid_mask, valid_mask.clone())
    targets = {name: target for name, target in targets.items() if name in modalities}
    keys = [f"sample-{seed}-{index}" for index in range(num_images)]
    return GeometryBatch(image, targets, keys, DatasetInfo(dataset))


def tensors_of(batch: GeometryBatch) -> dict[str, torch.Tensor]:
    """Return all tensors of a batch: image, camera, and values and mask of every modality."""
    tensors = {"image": batch.image} | ({} if batch.camera is None else {"camera": batch.camera})
    for name, target in batch.targets.items():
        tensors |= {name: target.values, f"{name}_mask": target.mask}
    return tensors


class _Batches:
    """A loader of a fixed number of batches that remembers how far it came."""

    def __init__(self, num_batches: int, first_seed: int, **options: Any) -> None:
        self.num_batches = num_batches
        self.first_seed = first_seed
        self.options = options
        self.start = 0
        self.position = 0

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[GeometryBatch]:
        start, self.start = self.start, 0
        for position in range(start + 1, self.num_batches + 1):
            self.position = position
            yield make_batch(seed=self.first_seed + position, **self.options)

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["position"]


class TinyData(LightningDataModule):
    """Random batches of two validation data sets and one endless enough training stream.

    Args:
        num_batches: number of training batches in an epoch.
        num_images: images per batch.
        size: height and width of the images in pixels.
        modalities: what to deliver beside the images; both by default.
    """

    def __init__(
        self, num_batches: int = 4, num_images: int = 2, size: int = 32, modalities: list[str] | None = None
    ) -> None:
        super().__init__()
        self.num_batches = num_batches
        self.options = {"num_images": num_images, "height": size, "width": size}
        if modalities is not None:
            self.options["modalities"] = modalities

    @property
    def val_dataset_infos(self) -> list[DatasetInfo]:
        return [DatasetInfo("indoor"), DatasetInfo("outdoor")]

    @property
    def image_sizes(self) -> dict[str, tuple[int, int]]:
        return {dataset.name: (self.options["height"], self.options["width"]) for dataset in self.val_dataset_infos}

    @property
    def train_image_sizes(self) -> set[tuple[int, int]]:
        return set(self.image_sizes.values())

    def train_dataloader(self) -> _Batches:
        return _Batches(self.num_batches, first_seed=1000, **self.options)

    def val_dataloader(self) -> list[_Batches]:
        return [
            _Batches(2, first_seed=100 * index, dataset=dataset.name, **self.options)
            for index, dataset in enumerate(self.val_dataset_infos)
        ]
