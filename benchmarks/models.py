"""Estimators and batches for the benchmarks, made from the project's own configurations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from omegaconf import OmegaConf
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import ROOT
from geometry.batch import GeometryBatch
from lightning_modules import StableDiffusion
from lightning_modules.estimator import Estimator
from lightning_modules.inference.loading import build_estimator
from tests.helpers.full_size import NOTHING_WRONG, UNET, VAE, random_full_size_base
from tests.helpers.tiny import make_batch

Size = Literal["tiny", "full"]

TOY_BASE = ROOT / "checkpoints/tiny-stable-diffusion"
RECIPE = ROOT / "configs/depth_stable_diffusion.yaml"
IMAGE_SIZES: dict[str, tuple[int, int]] = {"tiny": (64, 96), "full": (480, 640)}

# What may be added to a configuration's network, by the name it has in the results.
VARIANTS: dict[str, dict[str, Any]] = {
    "channels_last": {"channels_last": True},
    "vae_bfloat16": {"vae_precision": "bfloat16"},
    "compile": {"compile": {"mode": "default", "dynamic": False}},
    "compile_blocks": {"compile": {"mode": "default", "dynamic": False, "regions": "blocks"}},
    "compile_channels_last": {"compile": {"mode": "default", "dynamic": False}, "channels_last": True},
    "decoder_checkpointing": {"decoder_checkpointing": True},
    "unet_checkpointing": {"unet_checkpointing": True},
}


@dataclass(frozen=True)
class Settings:
    """How a step is trained.

    Attributes:
        network: arguments of the network, without its base.
        precision: the trainer's precision.
        batch_size: images per micro-batch.
        overlays: the files that these settings come from.
    """

    network: dict[str, Any]
    precision: str
    batch_size: int
    overlays: list[str] = field(default_factory=list)

    @classmethod
    def from_configs(cls, files: Sequence[Path]) -> "Settings":
        """Return the settings of configurations that are laid over one another."""
        merged = OmegaConf.merge(*map(OmegaConf.load, files))
        network = OmegaConf.to_container(merged.model.init_args.network.init_args)
        assert isinstance(network, dict)
        network.pop("base")
        precision = str(merged.trainer.get("precision", "32-true"))
        return cls(network, precision, merged.data.init_args.batch_size, [str(file) for file in files[1:]])  # type: ignore[arg-type]

    def with_network(self, **options: Any) -> "Settings":  # noqa: ANN401
        """Return the settings with other arguments of the network."""
        return replace(self, network={**self.network, **options})

    def build(self, base: Path, device: torch.device | None = None) -> Estimator:
        """Return an estimator of depth on a device, ready to train; without a device, where it comes from."""
        network = {"class_path": "lightning_modules.StableDiffusion", "init_args": {"base": str(base), **self.network}}
        init_args = {"network": network, "task": {"class_path": "lightning_modules.Depth"}}
        estimator = build_estimator({"class_path": "lightning_modules.SingleStepEstimator", "init_args": init_args})
        return estimator if device is None else estimator.to(device)

    def autocast(self, device: torch.device) -> Any:  # noqa: ANN401 - a context
        """Return the context in which the trainer would compute."""
        kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
        return torch.autocast(device.type, kinds[self.precision]) if self.precision in kinds else nullcontext()


@contextmanager
def base_of(size: Size, scratch: Path) -> Iterator[Path]:
    """Yield a base to build networks from: the toy base, or random weights of Stable Diffusion 2's size."""
    if size == "tiny":
        yield TOY_BASE
        return
    with random_full_size_base(scratch) as base:
        yield base


def random_batch(num_images: int, size: tuple[int, int], seed: int, device: torch.device) -> GeometryBatch:
    """Return random images with depth on a device."""
    return make_batch(num_images, *size, seed=seed, modalities=["depth"]).to(device)


def count_flops(size: Size, scratch: Path, image_size: tuple[int, int]) -> dict[str, float]:
    """Return the operations (TFLOP) for one image, by part, without computing anything.

    Counted are matrix products, convolutions and attention, a multiplication and an addition as two; the backward pass
    goes through the decoder to the UNet's weights; nothing is recomputed.
    """
    with base_of(size, scratch) as base, _on_meta(size):
        network = StableDiffusion(str(base)).to("meta")
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        marks = [0.0]
        image_latent = network.encode(torch.empty(1, 3, *image_size, device="meta"))
        marks.append(counter.get_total_flops())
        latent = network.clean_latent(image_latent, torch.zeros_like(image_latent))
        marks.append(counter.get_total_flops())
        decoded = network.decode(latent)
        marks.append(counter.get_total_flops())
        decoded.sum().backward()
        marks.append(counter.get_total_flops())
    parts = [round((after - before) / 1e12, 6) for before, after in pairwise(marks)]
    names = ("encode", "unet", "decode", "backward")
    return {**dict(zip(names, parts, strict=True)), "forward": round(sum(parts[:3]), 6), "step": round(sum(parts), 6)}


@contextmanager
def _on_meta(size: Size) -> Iterator[None]:
    """Let networks of the full size be built without memory for their weights."""
    if size == "tiny":
        yield
        return

    def make(kind: type[nn.Module], config: dict[str, Any]) -> Any:  # noqa: ANN401
        def build(*_: Any, **__: Any) -> tuple[nn.Module, dict[str, list[str]]]:  # noqa: ANN401
            with torch.device("meta"):
                return kind(**config), NOTHING_WRONG

        return patch.object(kind, "from_pretrained", build)

    finite = patch("lightning_modules.networks.pretrained.check_finite")  # there are no numbers
    with make(UNet2DConditionModel, UNET), make(AutoencoderKL, VAE), finite:
        yield
