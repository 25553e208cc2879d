"""Memory of real steps against the plan of them.

Run ``python -m benchmarks.planned_memory --out planned_memory.json`` from the folder of the project; on a GPU,
``python -m benchmarks.planned_memory --size full --config configs/hardware/h200.yaml``. ``--smaller_first H W`` takes
steps of smaller images in turn with the others, before them; ``--smaller_later H W`` after them.

Contract: two micro-batches and an optimiser step, after one that warms up. On a GPU, the peak of what its allocator has
handed out and of what it has reserved; on a CPU, of what PyTorch's profiler saw. ``planned`` is the planner's, at the
same settings, of the larger images; ``ratio`` is planned / measured. What is reserved beyond what was handed out lies
idle, and depends on the size that came first unless ``PYTORCH_ALLOC_CONF=expandable_segments:True``.
"""

import gc
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import report, use_one_thread
from benchmarks.models import IMAGE_SIZES, RECIPE, Settings, base_of
from benchmarks.network_parser import NetworkParser
from lightning_modules.estimator import Estimator
from lightning_modules.networks.weightless import without_weights
from lightning_modules.planning.simulated_step import Situation, make_batch, simulate


def take_step(
    estimator: Estimator, settings: Settings, situation: Situation, device: torch.device
) -> Callable[[], None]:
    """Return an optimiser step of two micro-batches."""
    weights = [weight for weight in estimator.parameters() if weight.requires_grad]
    optimizer = estimator.make_optimizer(iter(weights))
    estimator.network.train()

    def step() -> None:
        for _ in range(2):
            batch = make_batch(estimator, situation.batch_size, situation.image_size, settings.precision).to(device)
            with settings.autocast(device):
                loss, _ = estimator.training_loss(batch, [0] * situation.batch_size)
            loss.backward()
        estimator.gradient_guard.apply(optimizer, 0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def in_turn(steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """Return what takes steps one after the other."""

    def take() -> None:
        for step in steps:
            step()

    return take


def measured(step: Callable[[], None], held: int, device: torch.device) -> dict[str, int]:
    """Return the peak of a step in bytes."""
    step()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return {
            "measured": torch.cuda.max_memory_allocated(device),
            "reserved": torch.cuda.max_memory_reserved(device),
        }
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    now = most = 0
    found = (event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]")  # type: ignore[union-attr]
    for event in sorted(found, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return {"measured": held + most}


def run(options: Any, scratch: Path) -> dict[str, Any]:  # noqa: ANN401 - argparse's
    """Return all figures."""
    device = options.device
    settings = Settings.from_configs([RECIPE, *options.config]).with_network(compile=None)
    situation = Situation(options.image_size, options.batch_size or settings.batch_size, 2, settings.precision)
    with base_of(options.size, scratch) as base:
        with without_weights():
            shapes = settings.build(base)
        planned = simulate(shapes, situation, for_gpu=device.type == "cuda")
        estimator = settings.build(base, device)
    held = sum(tensor.untyped_storage().nbytes() for tensor in (*estimator.parameters(), *estimator.buffers()))
    trained = sum(weight.numel() * weight.element_size() for weight in estimator.parameters() if weight.requires_grad)
    sizes = [options.smaller_first, options.image_size, options.smaller_later]
    situations = [replace(situation, image_size=tuple(size)) for size in sizes if size is not None]
    steps = [take_step(estimator, settings, each, device) for each in situations]
    found = measured(in_turn(steps), held + 2 * trained, device)
    return {
        **found,
        "planned": planned.peak_bytes,
        "ratio": round(planned.peak_bytes / found["measured"], 4),
        "planned_phase": planned.peak_phase,
        "batch_size": situation.batch_size,
        "precision": situation.precision,
        "image_sizes": [list(each.image_size) for each in situations],
    }


def main() -> None:
    """Run the benchmark."""
    parser = NetworkParser(__doc__, IMAGE_SIZES)
    parser.add_argument("--config", type=Path, nargs="+", default=[], help="configurations laid over the recipe")
    parser.add_argument("--batch_size", type=int, help="images per micro-batch (default: the configuration's)")
    turns = parser.add_mutually_exclusive_group()
    for name in ("first", "later"):
        turns.add_argument(f"--smaller_{name}", type=int, nargs=2, metavar=("H", "W"), help="also of this size")
    options = parser.read()
    use_one_thread()
    with tempfile.TemporaryDirectory() as scratch:
        report("planned_memory", run(options, Path(scratch)), options.out)


if __name__ == "__main__":
    main()
