"""How long an optimiser step takes: the authors' settings, ours and a plain transcription, in one run.

Run ``python -m benchmarks.train_step --out train_step.json`` from the folder of the project; on one H200,
``python -m benchmarks.train_step --size full --config configs/hardware/h200.yaml --data SHARDS --workers 8``.

Contract: every candidate takes whole optimiser steps (forward, backward, clipping, AdamW) of the same number of images,
in micro-batches of its own size, on fresh random images that are on the device already. ``authors`` is the recipe of
the paper: float32, micro-batches of 2, the UNet recomputed, eager. ``ours`` is the recipe with the files of --config
(without any, on a CPU, nothing is recomputed). ``plain`` is the same step in float32 written out with diffusers alone,
in ours' micro-batches. At the tiny size they take turns; at the full size they run one after another, each alone in
memory. The roofline share relates the operations of a step (nothing recomputed) to those of matrix products, measured
in the same precision and run. With --data, ours is trained by the trainer on real batches, too, and the share of time
that it waits for them is reported.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from benchmarks.measuring import alternate, matrix_tflops, report, summarize, use_one_thread
from benchmarks.models import (
    IMAGE_SIZES,
    RECIPE,
    VARIANTS,
    Settings,
    base_of,
    count_flops,
    random_batch,
)
from benchmarks.network_parser import NetworkParser
from benchmarks.trainer_run import trainer_run
from tests.helpers.transcription import Reference, transcribed_step

Step = Callable[[int], Any]

LEARNING_RATE = 3e-5
_DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def make_ours(settings: Settings, base: Path, options: argparse.Namespace) -> Step:
    """Return an optimiser step of the project's estimator."""
    device = options.device
    estimator = settings.build(base, device)
    estimator.network.train()
    optimizer = estimator.make_optimizer(weight for weight in estimator.parameters() if weight.requires_grad)
    parts = _micro_batches(options.images, settings.batch_size)

    def step(number: int) -> None:
        for part, size in enumerate(parts):
            batch = random_batch(size, options.image_size, 1000 * number + part, device)
            with settings.autocast(device):
                loss, _ = estimator.training_loss(batch, [0] * size)
            (loss * size / options.images).backward()
        estimator.gradient_guard.apply(optimizer, number)
        optimizer.step()
        optimizer.zero_grad()

    return step


def make_plain(settings: Settings, base: Path, options: argparse.Namespace) -> Step:
    """Return an optimiser step written out with diffusers alone, eager and in float32."""
    device = options.device
    factor = AutoencoderKL.from_pretrained(base, subfolder="vae").config["scaling_factor"]
    reference = Reference(base, "zeros", torch.float32, factor)
    for part in (reference.vae, reference.unet):
        part.to(device)
    reference.prompt = reference.prompt.to(device)
    weights = list(reference.unet.parameters())
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE)
    parts = _micro_batches(options.images, settings.batch_size)

    def step(number: int) -> None:
        for part, size in enumerate(parts):
            batch = random_batch(size, options.image_size, 1000 * number + part, device)
            _, loss = transcribed_step(reference, batch, "v_prediction", "zeros", True, [0] * size)
            (loss * size / options.images).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _micro_batches(num_images: int, batch_size: int) -> list[int]:
    sizes = [batch_size] * (num_images // batch_size)
    return sizes + ([num_images % batch_size] if num_images % batch_size else [])


def measure(makers: dict[str, Callable[[], Step]], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return seconds and peak memory of a step of every candidate."""
    if options.size == "tiny":
        seconds = alternate({n: make() for n, make in makers.items()}, options.repeats, options.warmup, options.device)
        return {name: {"seconds_per_step": summarize(values)} for name, values in seconds.items()}
    results = {}
    for name, make in makers.items():
        gc.collect()
        if options.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds = alternate({name: make()}, options.repeats, options.warmup, options.device)
        results[name] = {"seconds_per_step": summarize(seconds[name])}
        if options.device.type == "cuda":
            results[name]["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            results[name]["peak_reserved_gib"] = round(torch.cuda.max_memory_reserved() / 2**30, 2)
    return results


def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return all figures."""
    authors, ours = Settings.from_configs([RECIPE]), Settings.from_configs([RECIPE, *options.config])
    if options.device.type == "cpu" and not options.config:
        ours = ours.with_network(unet_checkpointing=False)
    ours = replace(ours, batch_size=options.batch_size or ours.batch_size)
    settings = {"authors": authors, "ours": ours}
    settings |= {f"ours+{name}": ours.with_network(**VARIANTS[name]) for name in options.variants}
    flops = count_flops(options.size, scratch, options.image_size)
    with base_of(options.size, scratch) as base:
        makers = {name: (lambda s=s: make_ours(s, base, options)) for name, s in settings.items()}
        makers["plain"] = lambda: make_plain(ours, base, options)
        makers = {name: make for name, make in makers.items() if not options.only or name in options.only}
        results = measure(makers, options)
        if options.data:
            results["ours"]["trainer"] = trainer_run(ours, base, options)
    precisions = {name: settings[name].precision if name in settings else "32-true" for name in results}
    peaks = {precision: matrix_tflops(options.device, _DTYPES[precision]) for precision in set(precisions.values())}
    for name, figures in results.items():
        seconds = figures["seconds_per_step"]["median"]
        figures["tflops"] = round(flops["step"] * options.images / seconds, 4)
        figures["roofline_share"] = round(figures["tflops"] / peaks[precisions[name]], 3)
        if "plain" in results:
            figures["time_of_plain"] = round(seconds / results["plain"]["seconds_per_step"]["median"], 3)
        if name in settings:
            figures["settings"] = {**vars(settings[name])}
    return {"images_per_step": options.images, "tflop_per_image": flops, "matrix_tflops": peaks, **results}


def _arguments() -> argparse.Namespace:
    parser = NetworkParser(__doc__, IMAGE_SIZES)
    parser.add_argument("--config", type=Path, nargs="+", default=[], help="configurations laid over the recipe")
    parser.add_argument("--variants", nargs="*", default=[], choices=VARIANTS, help="options to try on top of ours")
    parser.add_argument("--only", nargs="+", help="candidates to time: authors, ours, plain, ours+VARIANT")
    parser.add_argument("--images", type=int, default=32, help="images per optimiser step (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, help="images per micro-batch of ours (default: the configuration's)")
    parser.add_argument("--repeats", type=int, default=10, help="timed steps of each (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="prepared data set to train on, too")
    parser.add_argument("--workers", type=int, default=8, help="loader processes for --data (default: %(default)s)")
    return parser.read()


def main() -> None:
    """Run the benchmark."""
    options = _arguments()
    use_one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        report("train_step", run(options, Path(scratch)), options.out)


if __name__ == "__main__":
    main()
