"""The stage that trains a toy's transformer: flow matching on latents of images."""

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor
from torch.nn import functional

from lightning_modules.networks.codec import AutoencoderKLCodec
from research.tiny_stable_diffusion.scenes import Array, Scenes, channels_first, halve
from research.tiny_stable_diffusion.training import optimize
from research.tiny_transformers.toys import Toy

_BATCH_SIZE = 8
_SHARES = {"halls": 0.55, "rooms": 0.35, "streets": 0.1}
_BLIND_SHARE = 0.25
_TIMESTEPS = 1000


def train_transformer(toy: Toy, vae: AutoencoderKL, train: dict[str, Scenes], steps: int, device: str) -> object:
    """Return a toy's transformer that denoises latents of images under its fixed conditioning.

    An editor sees an image beside the noisy latent that has lost colour, light or contrast, and is to give it as it
    was. A generator sees nothing else; it is told the last timestep for a quarter of the images whatever their noise,
    so that it looks at its input there, too. Fine-tuning asks at that timestep, and so few weights would otherwise
    predict an average image there.

    Args:
        toy: which.
        vae: its autoencoder.
        train: scenes by kind.
        steps: optimiser steps.
        device: where to.
    """
    torch.manual_seed(7)
    model = toy.make_model()
    denoiser = toy.wrap(model.to(device))
    given = {name: tensor.to(device) for name, tensor in denoiser.conditioning.items()}
    shift = FlowMatchEulerDiscreteScheduler(shift=toy.scheduler["shift"])
    codec = AutoencoderKLCodec(vae)
    latents = {kind: _latents(codec, train[kind]["image"], kind, toy.edits) for kind in _SHARES}
    rng = np.random.default_rng(8)

    def loss() -> Tensor:
        source = latents[str(rng.choice(list(_SHARES), p=list(_SHARES.values())))]
        seen, clean = source[torch.from_numpy(rng.integers(len(source), size=_BATCH_SIZE))].unbind(1)
        noise = torch.randn_like(clean)
        timesteps = shift.timesteps[torch.randint(_TIMESTEPS, (len(clean),))].to(clean)
        sigmas = (timesteps / _TIMESTEPS).view(-1, 1, 1, 1)
        sample = (1 - sigmas) * clean + sigmas * noise
        if toy.edits:
            sample = torch.cat([seen, sample], dim=1)
        else:
            timesteps = torch.where(torch.rand(len(clean), device=device) < _BLIND_SHARE, _TIMESTEPS, timesteps)
        return functional.mse_loss(denoiser.model_output(sample, timesteps, given), noise - clean)

    optimize(model, toy.pipeline, steps, 2e-3, loss)
    return model


@torch.no_grad()
def _latents(codec: AutoencoderKLCodec, images: Array, kind: str, edits: bool) -> Tensor:
    """Return latents (N,2,C,h,w) of all images as an editor sees them and as they are, mirror images as well.

    Rooms and halls are at half size. Where nothing is edited, what is seen is the image.
    """
    rng, encoded = np.random.default_rng(9), []
    for image in images.astype(np.float32):
        whole = (image if kind == "streets" else halve(image, "image")) / 255
        for each in (whole, whole[:, ::-1]):
            seen = _worse(each, rng) if edits else each
            pair = torch.stack([channels_first(seen), channels_first(each)]) * 2 - 1
            encoded.append(codec.encode(pair.to(codec.model.device)))
    return torch.stack(encoded)


def _worse(image: Array, rng: np.random.Generator) -> Array:
    """Return an image (H,W,3) in [0, 1] that has lost colour, contrast and light by chance."""
    grey = image.mean(axis=2, keepdims=True)
    image = image + rng.uniform(0, 1) * (grey - image)
    image = image.mean() + rng.uniform(0.5, 1) * (image - image.mean())
    return (image * rng.uniform(0.5, 1)).astype(np.float32)
