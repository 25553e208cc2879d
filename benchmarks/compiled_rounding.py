"""How far apart right results of compiled and plain parts of a network are, for the tolerance of their proof.

Every part is run plain, compiled, and plain in float32, on the same inputs; figures are the largest difference of any
output or gradient relative to its norm, as ``lightning_modules.training.compilation_proof`` counts it, over seeds of
weights and inputs. ``--base tiny`` is the tests' network of random weights, ``toy`` that of ``checkpoints``:

    python -m benchmarks.compiled_rounding --base tiny --precision bfloat16
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.networks.compilation import Compilation, compiled_regions
from lightning_modules.training import compilation_proof as proof
from tests.helpers.tiny import build_base, make_batch

TOY = "checkpoints/tiny-stable-diffusion"
SIZES = {"tiny": [(16, 16), (16, 24), (32, 48)], "toy": [(64, 96)]}
WEIGHTS_SHAKEN_BY = 0.05
Figures = dict[str, list[float]]


def make_estimator(base: str, backend: str, parts: list[str]) -> SingleStepEstimator:
    """Return an estimator with compiled parts, one compilation per image size."""
    compilation = Compilation(backend=backend, dynamic=False, parts=parts)
    return SingleStepEstimator(StableDiffusion(base, compile=compilation), Depth())


def shake(estimator: SingleStepEstimator, start: Mapping[str, Tensor], seed: int) -> None:
    """Set the weights to those of the start; with noise unless the seed is 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in estimator.named_parameters():
            spread = start[name].std().nan_to_num(0) * (WEIGHTS_SHAKEN_BY if seed else 0)
            weight.copy_(start[name] + spread * torch.randn(weight.shape, generator=generator))


def figures(part: nn.Module, call: Any) -> dict[str, float]:  # noqa: ANN401 - a call that the proof recorded
    """Return how far the compiled part is from the plain one, and both from float32."""

    def float32(tensor: Tensor) -> Tensor:
        return tensor.detach().float().requires_grad_(tensor.requires_grad) if tensor.is_floating_point() else tensor

    with torch.compiler.set_stance("force_eager"):
        plain = call.run(part)
        args, kwargs = tree_map_only(Tensor, float32, (call.args, call.kwargs))
        exact = proof._Call(args, kwargs, call.with_gradient, call.device, None).run(part)
    compiled = call.run(part)
    pairs = {"compiled to plain": (compiled, plain), "plain to float32": (plain, exact)}
    return {name: _error(*pair) for name, pair in (pairs | {"compiled to float32": (compiled, exact)}).items()}


def _error(found: list[Tensor], expected: list[Tensor]) -> float:
    norms = torch.stack([tensor.norm() for tensor in expected])
    errors = torch.stack([(a - b).norm() for a, b in zip(found, expected, strict=True)])
    return (errors / (norms + norms.norm() / len(norms) ** 0.5).clamp(min=1e-30)).max().item()


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Figures]:
    """Return all figures by part."""
    base = TOY if options.base == "toy" else str(build_base(folder / "base", vae_factor=2))
    estimator = make_estimator(base, options.backend, options.parts)
    parts = {str(name): p for name, p in estimator.network.compilable_parts().items() if compiled_regions(p)}
    start, dtype = copy.deepcopy(estimator.state_dict()), getattr(torch, options.precision)
    found: dict[str, Figures] = {}
    for height, width in SIZES[options.base][: options.sizes]:
        for seed in range(options.seeds):
            shake(estimator, start, seed)
            batch = make_batch(height=height, width=width, seed=seed)
            estimator.task.target(batch)

            def forward(batch: Any = batch) -> None:  # noqa: ANN401
                nothing_kept = torch.autograd.graph.saved_tensors_hooks(proof._nothing, proof._nothing)
                half = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
                with torch.compiler.set_stance("force_eager"), nothing_kept, half:
                    estimator.training_loss(batch, [0] * len(batch))

            for name, call in proof._record(parts, forward).items():
                for figure, value in figures(parts[name], call).items():
                    found.setdefault(name, {}).setdefault(figure, []).append(value)
    return found


def main() -> None:
    """Measure, and print the largest figures in units of the precision's rounding, too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=SIZES, default="tiny", help="Whose parts.")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16", "float16"), default="bfloat16", help="Of autocast."
    )
    parser.add_argument("--backend", default="inductor", help="Compiler.")
    parser.add_argument("--parts", nargs="+", default=["encoder", "unet", "decoder"], help="What to compile.")
    parser.add_argument("--seeds", type=int, default=8, help="How many weights and inputs.")
    parser.add_argument("--sizes", type=int, default=1, help="How many image sizes; each is compiled anew.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    eps = torch.finfo(getattr(torch, options.precision)).eps
    for part, values in found.items():
        largest = {name: {"max": max(v), "roundings": round(max(v) / eps, 1)} for name, v in values.items()}
        print(json.dumps({"part": part, "cases": len(values["compiled to plain"]), **largest}))


if __name__ == "__main__":
    main()
