"""Stage 3: the UNet learns to denoise latents of images."""

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from torch.nn import functional

from research.tiny_stable_diffusion.scenes import SIZES, Array, Scenes, channels_first, halve
from research.tiny_stable_diffusion.training import optimize

_BATCH_SIZE = 8
_SHARES = {"halls": 0.5, "rooms": 0.3, "streets": 0.2}
_BLIND_SHARE = 0.25

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""Stable Diffusion 2's noise schedule."""


def train_denoiser(
    vae: AutoencoderKL, train: dict[str, Scenes], prompt: Tensor, steps: int, device: str
) -> UNet2DConditionModel:
    """Return a UNet that denoises image latents under the empty prompt (v-prediction).

    A quarter of the images are denoised under the last timestep whatever their noise, so that the UNet looks at its
    input there, too. So few weights would otherwise learn to predict an average image from noise at once, and
    fine-tuning, which asks at that timestep, would have to teach it to see again.
    """
    torch.manual_seed(1)
    unet = UNet2DConditionModel(
        sample_size=SIZES["halls"][0] // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 48, 64, 96),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=prompt.shape[-1],
        attention_head_dim=(2, 3, 4, 4),
        norm_num_groups=8,
        use_linear_projection=True,
    ).to(device)
    latents = {kind: _latents(vae, train[kind]["image"], kind) for kind in _SHARES}
    alphas = DDIMScheduler(**SCHEDULE).alphas_cumprod.to(device)
    rng = np.random.default_rng(2)

    def loss() -> Tensor:
        source = latents[str(rng.choice(list(_SHARES), p=list(_SHARES.values())))]
        clean = source[torch.from_numpy(rng.integers(len(source), size=_BATCH_SIZE))]
        noise = torch.randn_like(clean)
        timesteps = torch.randint(len(alphas), (len(clean),), device=device)
        signal, rest = alphas[timesteps].sqrt().view(-1, 1, 1, 1), (1 - alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
        told = torch.where(torch.rand(len(clean), device=device) < _BLIND_SHARE, len(alphas) - 1, timesteps)
        model_output = unet(signal * clean + rest * noise, told, prompt.expand(len(clean), -1, -1)).sample
        return functional.mse_loss(model_output, signal * noise - rest * clean)

    optimize(unet, "unet", steps, 1.5e-3, loss)
    return unet


@torch.no_grad()
def _latents(vae: AutoencoderKL, images: Array, kind: str) -> Tensor:
    """Scaled latents of all images and their mirror images, rooms and halls at half size."""
    encoded = []
    for image in images.astype(np.float32):
        color = channels_first((image if kind == "streets" else halve(image, "image")) / 127.5 - 1)
        encoded.append(vae.encode(torch.stack([color, color.flip(-1)]).to(vae.device)).latent_dist.mean)
    return torch.cat(encoded) * vae.config["scaling_factor"]
