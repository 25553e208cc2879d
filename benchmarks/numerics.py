"""What options for speed do to loss and gradients, relative to float32.

Run ``python -m benchmarks.numerics --out numerics.json`` from the folder of the project.

Contract: one training step of depth on the toy base, on the same random images for all. ``loss`` and ``gradient`` are
differences from eager float32 relative to its size (of the gradient, the norm over all weights), ``cosine`` is that of
the angle between both gradients; the worst of a few batches counts. float64 shows how large the rounding of float32
itself is.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring import report, use_one_thread
from benchmarks.models import IMAGE_SIZES, RECIPE, VARIANTS, Settings, base_of, random_batch
from benchmarks.network_parser import NetworkParser
from lightning_modules.training.attention import Attention, prefer_attention

Result = tuple[Tensor, Tensor]


def cases(compile_too: bool) -> dict[str, tuple[Settings, Attention, torch.dtype]]:
    """Return settings, attention kernel and type of weights of every case, by name; the first is the reference."""
    plain = Settings.from_configs([RECIPE]).with_network(unet_checkpointing=False)
    mixed = replace(plain, precision="bf16-mixed")
    full = torch.float32
    made: dict[str, tuple[Settings, Attention, torch.dtype]] = {
        "float32": (plain, "auto", full),
        "float64": (plain, "auto", torch.float64),
        "channels_last": (plain.with_network(channels_last=True), "auto", full),
        "unet_checkpointing": (plain.with_network(unet_checkpointing=True), "auto", full),
        "attention_math": (plain, "math", full),
        "attention_flash": (plain, "flash", full),
        "vae_bfloat16": (plain.with_network(vae_precision="bfloat16"), "auto", full),
        "bf16-mixed": (mixed, "auto", full),
        "bf16-mixed+channels_last": (mixed.with_network(channels_last=True), "auto", full),
        "bf16-mixed+vae_bfloat16": (mixed.with_network(vae_precision="bfloat16"), "auto", full),
    }
    if compile_too:
        made["compile"] = (plain.with_network(**VARIANTS["compile"]), "auto", full)
    return made


@contextmanager
def attention(kernel: Attention) -> Iterator[None]:
    """Let a kernel compute attention for a while."""
    prefer_attention(kernel)
    try:
        yield
    finally:
        prefer_attention("auto")


def measure(settings: Settings, kernel: Attention, dtype: torch.dtype, options: argparse.Namespace) -> list[Result]:
    """Return loss and gradient of every batch, in float64 on the host."""
    device, results = options.device, []
    with base_of(options.size, options.scratch) as base:
        estimator = settings.build(base, device).to(dtype) if dtype != torch.float32 else settings.build(base, device)
    estimator.network.train()
    for seed in range(options.batches):
        batch = random_batch(options.batch_size, options.image_size, seed, device)
        batch.image = batch.image.to(dtype)
        estimator.zero_grad()
        with attention(kernel):
            with settings.autocast(device):
                loss, _ = estimator.training_loss(batch, [0] * options.batch_size)
            loss.backward()
        gradients = [weight.grad.flatten() for weight in estimator.parameters() if weight.grad is not None]
        results.append((loss.detach().double().cpu(), torch.cat(gradients).double().cpu()))
    return results


def compare(results: list[Result], expected: list[Result]) -> dict[str, float]:
    """Return the worst errors over the batches."""
    pairs = list(zip(results, expected, strict=True))
    loss = max(abs(ours[0] - theirs[0]) / abs(theirs[0]) for ours, theirs in pairs)
    gradient = max((ours[1] - theirs[1]).norm() / theirs[1].norm() for ours, theirs in pairs)
    cosine = min(torch.cosine_similarity(ours[1], theirs[1], dim=0) for ours, theirs in pairs)
    return {"loss": float(f"{loss:.2g}"), "gradient": float(f"{gradient:.2g}"), "cosine": round(float(cosine), 6)}


def main() -> None:
    """Run the benchmark."""
    parser = NetworkParser(__doc__, IMAGE_SIZES)
    parser.add_argument("--batch_size", type=int, default=2, help="images per batch (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=3, help="batches (default: %(default)s)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="compile, too")
    options = parser.read()
    use_one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        options.scratch = Path(scratch)
        results: dict[str, Any] = {}
        expected: list[Result] = []
        for name, case in cases(options.compile).items():
            torch.manual_seed(0)  # random weights are the same for all
            measured = measure(*case, options)
            expected = expected or measured
            results[name] = compare(measured, expected)
    report("numerics", results, options.out)


if __name__ == "__main__":
    main()
