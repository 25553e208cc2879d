"""The wall time of Stable Diffusion 2's architecture, slow and fast, with random weights."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from lightning_modules import Depth, DiffusionEstimator, Sampling, StableDiffusion
from research.paper_in_miniature.sampling_grid import seconds_of
from research.paper_in_miniature.settings import Settings
from research.paper_in_miniature.stages import Stages

SLOW_STEPS, SLOW_MEMBERS = 50, 10


def full_size_times(settings: Settings, stages: Stages) -> dict[str, float]:
    """Return seconds of the slow and the fast prediction of one image, and of the parts of the fast one.

    On a GPU 576x768, as in the paper; on a CPU a size that finishes. The slow prediction is timed once, before and
    after it the fast one and its parts, several times each; their medians count.

    Args:
        settings: sizes of the image.
        stages: where the result is kept.

    Returns:
        ``height``, ``width``; wall seconds ``slow_s``, ``fast_s``, ``encode_s``, ``unet_s``, ``decode_s``; processor
        seconds by the same names with ``_cpu_s``; ``is_gpu``.
    """
    is_gpu = torch.cuda.is_available()
    size = settings.full_size_image_cuda if is_gpu else settings.full_size_image
    device = "cuda" if is_gpu else "cpu"
    depends_on = {"size": size, "members": SLOW_MEMBERS, "device": device, "threads": torch.get_num_threads()}
    times = stages.json("full size", depends_on, partial(_measure, size, device))
    return times | {"is_gpu": is_gpu}


def _measure(size: tuple[int, int], device: str) -> dict[str, float]:
    estimator = _build().to(device).eval()
    network, image = estimator.network, torch.rand(1, 3, *size, device=device) * 2 - 1
    latent = network.encode(image)
    parts: dict[str, Callable[[], object]] = {
        "encode": lambda: network.encode(image),
        "unet": lambda: network.model_output(torch.cat([latent, latent], dim=1), network.timestep),
        "decode": lambda: network.decode(latent),
        "fast": lambda: estimator(image),
    }
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in parts}

    def time_parts() -> None:
        for name, action in parts.items():
            for _ in range(3):
                samples[name].append(seconds_of(action))

    with torch.no_grad(), tqdm(total=SLOW_STEPS * SLOW_MEMBERS, desc="full size", unit="evaluation") as bar:
        estimator(image)  # what happens only once
        time_parts()
        hook = network.unet.register_forward_pre_hook(lambda *_: _advance(bar))
        estimator.sampling = Sampling(num_steps=SLOW_STEPS, ensemble_size=SLOW_MEMBERS)
        samples["slow"] = [seconds_of(lambda: estimator(image))]
        hook.remove()
        estimator.sampling = Sampling(num_steps=1)
        time_parts()
    times: dict[str, float] = {"height": size[0], "width": size[1]}
    for name, each in samples.items():
        times[f"{name}_s"], times[f"{name}_cpu_s"] = map(median, zip(*each, strict=True))
    return times


def _advance(bar: tqdm) -> None:
    bar.update()


def _build() -> DiffusionEstimator:
    """Return an estimator of true size with random weights."""
    # The tests own the builder: they hold that its numbers of weights are those of Stable Diffusion 2.
    from tests.helpers.full_size import random_full_size_base

    with tempfile.TemporaryDirectory() as folder, random_full_size_base(Path(folder)) as base:
        return DiffusionEstimator(StableDiffusion(str(base)), Depth(), Sampling(num_steps=1))
