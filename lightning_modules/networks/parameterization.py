"""What a denoiser's answer stands for: v, the noise, or the clean latent itself."""

import math
from typing import Any

from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def clean_from_answer(answer: Tensor, noisy: Tensor, alpha: float, prediction_type: str) -> Tensor:
    """Return the clean latent that a denoiser's answer stands for.

    Args:
        answer: (B,C,h,w), the denoiser's output.
        noisy: (B,C,h,w), what it was asked to denoise.
        alpha: share of signal in the variance of ``noisy``, in (0, 1): the scheduler's cumulative product of alphas.
        prediction_type: one of ``PREDICTION_TYPES``.
    """
    signal, rest = math.sqrt(alpha), math.sqrt(1 - alpha)
    if prediction_type == "v_prediction":
        return signal * noisy - rest * answer
    if prediction_type == "epsilon":
        return (noisy - rest * answer) / signal
    return answer


def add_noise(clean: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Return noisy latents: the forward process of diffusion.

    Args:
        clean: (B,C,h,w), clean latents.
        noise: (B,C,h,w), noise of unit variance.
        alphas: (B,) in [0, 1], shares of signal in the variance: the scheduler's cumulative products of alphas.
    """
    signal, rest = _amplitudes(alphas)
    return signal * clean + rest * noise


def answer_to_learn(clean: Tensor, noise: Tensor, alphas: Tensor, prediction_type: str) -> Tensor:
    """Return what a denoiser should answer when asked to denoise ``add_noise(clean, noise, alphas)``.

    Args:
        clean: (B,C,h,w), clean latents.
        noise: (B,C,h,w), noise of unit variance.
        alphas: (B,) in [0, 1], as for ``add_noise``.
        prediction_type: one of ``PREDICTION_TYPES``.
    """
    if prediction_type == "v_prediction":
        signal, rest = _amplitudes(alphas)
        return signal * noise - rest * clean
    return noise if prediction_type == "epsilon" else clean


def _amplitudes(alphas: Tensor) -> tuple[Tensor, Tensor]:
    alphas = alphas[:, None, None, None]
    return alphas.sqrt(), (1 - alphas).sqrt()


def clip_like_scheduler(latent: Tensor, config: dict[str, Any]) -> Tensor:
    """Clip a clean latent as its scheduler would.

    Args:
        latent: (B,C,h,w), a clean latent.
        config: the scheduler's config.
    """
    if config.get("thresholding"):
        largest = latent.abs().flatten(1).float().quantile(config["dynamic_thresholding_ratio"], dim=1)
        largest = largest.clamp(min=1, max=config["sample_max_value"]).to(latent.dtype)[:, None, None, None]
        return latent.clamp(-largest, largest) / largest
    if config.get("clip_sample"):
        limit = config.get("clip_sample_range", 1.0)
        return latent.clamp(-limit, limit)
    return latent
