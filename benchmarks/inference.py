"""How long one image takes, image tensor in and depth out: eager, in bfloat16, compiled, as a CUDA graph.

Run ``python -m benchmarks.inference --out inference.json`` from the folder of the project; on one H200,
``python -m benchmarks.inference --size full``.

Contract: one fresh random image of 576x768 (64x96 at the tiny size), on the device already, without gradient;
candidates take turns. ``constants`` keeps the timestep's embedding and the prompt's keys and values. The roofline share
relates the operations to those of matrix products measured in the same precision and run. ``error`` is the difference
from eager float32, relative to its norm.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.constants import hold_constants
from benchmarks.cuda_graph import CudaGraph
from benchmarks.measuring import alternate, matrix_tflops, report, summarize, use_one_thread
from benchmarks.models import RECIPE, Settings, base_of, count_flops, random_batch
from benchmarks.network_parser import NetworkParser
from lightning_modules.estimator import Estimator
from lightning_modules.networks.compilation import Compilation

IMAGE_SIZES = {"tiny": (64, 96), "full": (576, 768)}

Predict = Callable[[Tensor], Tensor]


def candidates(estimator: Estimator, options: argparse.Namespace) -> dict[str, tuple[Predict, torch.dtype]]:
    """Return what to time, by name, with the precision of its matrix products."""
    device, half = options.device, torch.bfloat16
    constant = _copy(estimator)
    hold_constants(constant.network)
    made: dict[str, tuple[Predict, torch.dtype]] = {
        "eager_float32": (estimator, torch.float32),
        "constants_float32": (constant, torch.float32),
        "eager_bfloat16": (_autocast(estimator, device), half),
        "constants_bfloat16": (_autocast(constant, device), half),
    }
    if options.compile:
        compiled = _copy(constant)
        compiled.network.compile_parts(Compilation(dynamic=False))
        made["compiled_float32"] = (compiled, torch.float32)
        made["compiled_bfloat16"] = (_autocast(compiled, device), half)
    if device.type == "cuda":
        example = torch.zeros(1, 3, *options.image_size, device=device)
        made["graph_bfloat16"] = (CudaGraph(_autocast(constant, device), example), half)
        if options.compile:
            made["graph_compiled_bfloat16"] = (CudaGraph(made["compiled_bfloat16"][0], example), half)
    return made


def _copy(estimator: Estimator) -> Estimator:
    return copy.deepcopy(estimator).eval()


def _autocast(predict: Predict, device: torch.device) -> Predict:
    def run(image: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return predict(image)

    return run


@torch.no_grad()
def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return all figures."""
    settings = Settings.from_configs([RECIPE, *options.config]).with_network(unet_checkpointing=False)
    with base_of(options.size, scratch) as base:
        estimator = settings.build(base, options.device).eval()
    flops = count_flops(options.size, scratch, options.image_size)

    def image(number: int) -> Tensor:
        return random_batch(1, options.image_size, number, options.device).image

    made = candidates(estimator, options)
    steps = {name: (lambda number, predict=predict: predict(image(number))) for name, (predict, _) in made.items()}
    steps["input_alone"] = image
    seconds = alternate(steps, options.repeats, options.warmup, options.device)
    peaks = {kind: matrix_tflops(options.device, kind) for kind in {kind for _, kind in made.values()}}
    overhead, expected = summarize(seconds["input_alone"])["median"], estimator(image(0))
    results: dict[str, Any] = {"tflop": flops, "input_alone": summarize(seconds["input_alone"])}
    for name, (predict, kind) in made.items():
        milliseconds = summarize([1000 * (value - overhead) for value in seconds[name]])
        share = flops["forward"] / (milliseconds["median"] / 1000) / peaks[kind]
        error = ((predict(image(0)).float() - expected).norm() / expected.norm()).item()
        results[name] = {
            "milliseconds": milliseconds,
            "roofline_share": round(share, 3),
            "error": float(f"{error:.2g}"),
        }
    return results


def main() -> None:
    """Run the benchmark."""
    parser = NetworkParser(__doc__, IMAGE_SIZES)
    parser.add_argument("--config", type=Path, nargs="+", default=[], help="configurations laid over the recipe")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True, help="time compiled networks")
    parser.add_argument("--repeats", type=int, default=30, help="timed predictions of each (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=5, help="predictions before (default: %(default)s)")
    options = parser.read()
    use_one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        report("inference", run(options, Path(scratch)), options.out)


if __name__ == "__main__":
    main()
