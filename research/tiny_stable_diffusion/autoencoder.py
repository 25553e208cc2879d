"""Stages 2 and 4: the autoencoder, and its decoder once more for the sake of depth and normals."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from geometry import align_scale_shift
from research.tiny_stable_diffusion.scenes import SIZES, Scenes, channels_first, halve
from research.tiny_stable_diffusion.training import optimize

_CONTENTS = ("image", "relative_depth", "normals")
_CROP_PX = 64
_BATCH_SIZE = 8
# Of images, depth images and normals images.
_SHARES = (0.35, 0.25, 0.4)


class Crops(NamedTuple):
    """A batch for the autoencoder.

    Attributes:
        images: (B,3,H,W) float32 in [-1, 1].
        are_normals: (B,) bool, which of them show normals.
        depth_weight: (B,1,H,W) float32, relative error of depth per error of the image; 0 in other images.
    """

    images: Tensor
    are_normals: Tensor
    depth_weight: Tensor


def train_autoencoder(train: dict[str, Scenes], held_out: dict[str, Scenes], steps: int, device: str) -> AutoencoderKL:
    """Return an autoencoder of factor 4 for images, depth images and normals images."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=SIZES["rooms"][0] // 2,
    ).to(device)
    rng = np.random.default_rng(0)
    fit_autoencoder(vae, train, held_out, steps, 2e-3, rng)
    vae.register_to_config(scaling_factor=round(1 / mean_latents(vae, train, rng).std().item(), 5))
    return vae


def fit_autoencoder(
    vae: AutoencoderKL,
    train: dict[str, Scenes],
    held_out: dict[str, Scenes] | None,
    steps: int,
    learning_rate: float,
    rng: np.random.Generator,
) -> None:
    """Train an autoencoder on images, depth images and normals images.

    Args:
        vae: the autoencoder, on its device.
        train: scenes by kind.
        held_out: scenes that it is measured on now and then; None measures nothing.
        steps: optimiser steps.
        learning_rate: its peak.
        rng: draws the crops.
    """
    batches = _crops(train, rng, _SHARES)

    def loss() -> Tensor:
        images = next(batches).images.to(vae.device)
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        return _image_loss(decoded, images) + 1e-5 * posterior.kl().mean() / posterior.mean[0].numel()

    optimize(vae, "autoencoder", steps, learning_rate, loss, _measured(vae, held_out))


@torch.no_grad()
def mean_latents(vae: AutoencoderKL, train: dict[str, Scenes], rng: np.random.Generator) -> Tensor:
    """Return the values of the mean latents of some crops, in one row."""
    batches = _crops(train, rng, _SHARES)
    return torch.cat([vae.encode(next(batches).images.to(vae.device)).latent_dist.mean.flatten() for _ in range(16)])


def refine_decoder(
    vae: AutoencoderKL, train: dict[str, Scenes], held_out: dict[str, Scenes] | None, steps: int, device: str
) -> AutoencoderKL:
    """Return the autoencoder with a decoder trained further; the latents stay what the UNet has learned."""
    torch.manual_seed(2)
    for name, parameter in vae.named_parameters():
        parameter.requires_grad_(name.startswith(("decoder", "post_quant_conv")))
    batches = _crops(train, np.random.default_rng(3), (0.15, 0.4, 0.45))

    def loss() -> Tensor:
        crops = next(batches)
        images, weight = crops.images.to(device), crops.depth_weight.to(device)
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean
        decoded = vae.decode(latents).sample
        normals = crops.are_normals.to(device)
        relative_error = (decoded - images).mean(dim=1, keepdim=True).abs() * weight
        directions = _direction_loss(decoded[normals], images[normals])
        return _image_loss(decoded, images) + relative_error.mean() + directions

    optimize(vae, "decoder", steps, 1.5e-3, loss, _measured(vae, held_out))
    return vae


def _image_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """Absolute and squared error of the values, and absolute error of their differences, which keeps edges sharp."""
    loss = functional.l1_loss(decoded, images) + 2 * functional.mse_loss(decoded, images)
    for axis in (2, 3):
        loss = loss + 0.5 * functional.l1_loss(decoded.diff(dim=axis), images.diff(dim=axis))
    return loss


def _direction_loss(decoded: Tensor, normals: Tensor) -> Tensor:
    """Mean distance on the unit sphere, 0 without normals."""
    known = normals.norm(dim=1) > 0.5
    distance = (functional.normalize(decoded, dim=1) - normals).square().sum(dim=1).clamp(min=1e-6).sqrt()
    return torch.where(known, distance, 0).sum() / known.sum().clamp(min=1)


def _crops(sets: dict[str, Scenes], rng: np.random.Generator, shares: tuple[float, ...]) -> Iterator[Crops]:
    """Endless batches of random kind, scale, contrast and orientation; ``shares`` of images, depth and normals."""
    while True:
        contents = [str(content) for content in rng.choice(_CONTENTS, _BATCH_SIZE, p=shares)]
        images, weights = zip(*(_crop(sets, rng, content) for content in contents), strict=True)
        are_normals = torch.tensor([content == "normals" for content in contents])
        yield Crops(torch.stack(images), are_normals, torch.stack(weights))


def _crop(sets: dict[str, Scenes], rng: np.random.Generator, content: str) -> tuple[Tensor, Tensor]:
    """Part of an image (3,H,W), and its depth weight (1,H,W)."""
    kind = str(rng.choice(["rooms", "halls", "streets"], p=[0.45, 0.25, 0.3]))
    images = sets[kind][content]
    number = rng.integers(len(images))
    values = images[number].astype(np.float32)
    if kind != "streets" and rng.random() < 0.65:
        values = halve(values, content)
    top, left = (rng.integers(0, length - _CROP_PX + 1) for length in values.shape[:2])
    values = values[top : top + _CROP_PX, left : left + _CROP_PX]
    values = values[:, ::-1] if rng.random() < 0.5 else values
    weight = np.zeros((_CROP_PX, _CROP_PX, 1))
    if content == "image":
        values = values / 127.5 - 1
    elif content == "relative_depth":
        near, far = sets[kind]["depth_range_m"][number]
        contrast = rng.uniform(0.5, 1)
        weight = ((far - near) / 2 / (near + (values + 1) / 2 * (far - near)) / contrast)[..., None]
        values = np.repeat(values[..., None], 3, axis=2) * rng.choice([-1, 1]) * contrast
    else:
        values = values * np.array([rng.choice([-1, 1]), 1, 1])
    return channels_first(values.astype(np.float32)), channels_first(weight.astype(np.float32))


def _measured(vae: AutoencoderKL, held_out: dict[str, Scenes] | None) -> Callable[[], object] | None:
    return None if held_out is None else lambda: measure_autoencoder(vae, held_out)


@torch.no_grad()
def measure_autoencoder(vae: AutoencoderKL, sets: dict[str, Scenes]) -> dict[str, float]:
    """Return errors of decode(encode(image)): depth AbsRel after alignment, mean normal angle, image PSNR in dB."""
    figures = {}
    for kind in sets:
        for halved in (False,) if kind == "streets" else (True, False):
            depth_errors, angles, squared = [], [], []
            for number in range(len(sets[kind]["image"])):
                scene = {content: sets[kind][content][number].astype(np.float32) for content in (*_CONTENTS, "depth")}
                if halved:
                    scene = {content: halve(values, content) for content, values in scene.items()}
                depth, normals, image = _round_trip(vae, scene)
                depth_errors.append(_abs_rel(depth, torch.from_numpy(scene["depth"])[None, None]))
                angles.append(_mean_angle_deg(normals, channels_first(scene["normals"])))
                squared.append((image.clamp(-1, 1) - channels_first(scene["image"] / 127.5 - 1)).square().mean() / 4)
            name = kind + " " + "x".join(str(length) for length in scene["depth"].shape)
            figures[f"{name} abs_rel"] = round(float(np.mean(depth_errors)), 4)
            figures[f"{name} angle_deg"] = round(float(np.mean(angles)), 2)
            figures[f"{name} psnr_db"] = round(float(-10 * np.log10(np.mean(squared))), 1)
    return figures


def _round_trip(vae: AutoencoderKL, scene: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """Decoded depth (1,1,H,W), normals (3,H,W) and image (3,H,W)."""
    depth = torch.from_numpy(scene["relative_depth"]).expand(3, -1, -1)
    image = channels_first(scene["image"] / 127.5 - 1)
    stacked = torch.stack([depth, channels_first(scene["normals"]), image]).to(vae.device)
    decoded = vae.decode(vae.encode(stacked).latent_dist.mean).sample.cpu()
    return decoded[:1].mean(dim=1, keepdim=True), decoded[1], decoded[2]


def _mean_angle_deg(decoded: Tensor, normals: Tensor) -> float:
    known = normals.norm(dim=0) > 0.5
    cosine = functional.cosine_similarity(decoded, normals, dim=0)[known]
    return torch.rad2deg(cosine.clamp(-1, 1).acos()).mean().item()


def _abs_rel(prediction: Tensor, depth: Tensor) -> float:
    """AbsRel after alignment between the 2 % and 98 % quantiles of depth, which is all that a depth image holds."""
    low, high = torch.quantile(depth[depth > 0], torch.tensor([0.02, 0.98]))
    valid = (depth >= low) & (depth <= high)
    scale, shift = align_scale_shift(prediction, depth, valid)
    aligned = prediction * scale.view(-1, 1, 1, 1) + shift.view(-1, 1, 1, 1)
    return ((aligned - depth).abs() / depth)[valid].mean().item()
